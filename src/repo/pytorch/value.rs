use std::cell::RefCell;
use std::rc::Rc;

use super::storage::Storage;
use super::tensor::TensorView;

/// What is shared by all who hold it, as Python's dictionaries and lists are.
pub(super) type Shared<T> = Rc<RefCell<Vec<T>>>;

/// The most dimensions of a tensor, as in PyTorch.
const MOST_DIMENSIONS: usize = 64;

/// A value of a pickle; a copy of one is small, whatever it holds. It may hold itself, so it
/// is not to be shown or compared as a whole.
#[derive(Clone)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    /// A number of more than eight bytes, little-endian.
    Long(Rc<[u8]>),
    /// A number with a fraction; no tensor needs its value.
    Float,
    Text(Rc<str>),
    Tuple(Rc<[Value]>),
    List(Shared<Value>),
    Dict(Shared<(Value, Value)>),
    /// A class or a function, by its module and name; never looked up, let alone called.
    Global(Rc<(String, String)>),
    Storage(Storage),
    Tensor(Rc<TensorView>),
}

impl Value {
    /// What kind of value this is.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Bool(_) => "a truth value",
            Self::Int(_) | Self::Long(_) | Self::Float => "a number",
            Self::Text(_) => "a text",
            Self::Tuple(_) => "a tuple",
            Self::List(_) => "a list",
            Self::Dict(_) => "a dictionary",
            Self::Global(_) => "a class",
            Self::Storage(_) => "a storage",
            Self::Tensor(_) => "a tensor",
        }
    }

    /// A text.
    pub(super) fn text(&self) -> Option<Rc<str>> {
        match self {
            Self::Text(text) => Some(text.clone()),
            _ => None,
        }
    }

    /// A number that is a size.
    pub(super) fn size(&self) -> Option<usize> {
        match self {
            Self::Int(number) => usize::try_from(*number).ok(),
            _ => None,
        }
    }

    /// The items of a list or a tuple.
    pub(super) fn items(&self) -> Option<Vec<Value>> {
        match self {
            Self::List(items) => Some(items.borrow().clone()),
            Self::Tuple(items) => Some(items.to_vec()),
            _ => None,
        }
    }

    /// The items of a list or a tuple that has no more than a tensor has dimensions.
    pub(super) fn few_items(&self) -> Option<Vec<Value>> {
        let count = match self {
            Self::List(items) => items.borrow().len(),
            Self::Tuple(items) => items.len(),
            _ => return None,
        };
        (count <= MOST_DIMENSIONS).then(|| self.items()).flatten()
    }

    /// The entries of a dictionary.
    pub(super) fn entries(&self) -> Option<Vec<(Value, Value)>> {
        match self {
            Self::Dict(entries) => Some(entries.borrow().clone()),
            _ => None,
        }
    }

    /// The value of a name in a dictionary.
    pub(super) fn get(&self, name: &str) -> Option<Value> {
        let entries = self.entries()?.into_iter();
        let mut found = entries.filter(|(key, _)| matches!(key, Self::Text(key) if **key == *name));
        found.next_back().map(|(_, value)| value)
    }
}
