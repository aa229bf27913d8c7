use std::collections::HashMap;
use std::rc::Rc;

use super::Reason;
use super::storage::{Storage, storage_dtype};
use super::tensor::TensorView;
use super::value::{Shared, Value};

/// The most steps in a file's pickles. A tensor takes about thirty.
const MOST_STEPS: usize = 1 << 22;

/// Reads the pickles of a file one after another (`pickletools` of Python has the codes). The
/// values it gives are to be let go before it is.
pub(super) struct Unpickler<'a> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Value>,
    marks: Vec<usize>,
    memo: HashMap<usize, Value>,
    storages: Vec<Storage>,
    /// All tuples, lists and dictionaries, inner ones before those that they are put into.
    containers: Vec<Value>,
    steps: usize,
}

impl Drop for Unpickler<'_> {
    /// Takes containers apart one by one: letting go of the outermost would go as deep as they
    /// are nested, and those that hold themselves would stay.
    fn drop(&mut self) {
        self.stack.clear();
        self.memo.clear();
        for container in &self.containers {
            match container {
                Value::List(items) => items.borrow_mut().clear(),
                Value::Dict(entries) => entries.borrow_mut().clear(),
                _ => {}
            }
        }
        while self.containers.pop().is_some() {}
    }
}

impl<'a> Unpickler<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            storages: Vec::new(),
            containers: Vec::new(),
            steps: 0,
        }
    }

    /// Where the pickles that were read end.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// The storages that were named.
    pub(super) fn storages(&self) -> &[Storage] {
        &self.storages
    }

    /// Reads the next pickle.
    pub(super) fn load(&mut self) -> Result<Value, Reason> {
        self.stack.clear();
        self.marks.clear();
        self.memo.clear();
        loop {
            let code = self.take(1)?[0];
            self.steps += 1;
            if self.steps > MOST_STEPS {
                return Err(format!("its pickle has more than {MOST_STEPS} steps"));
            }
            if code == b'.' {
                return self.pop();
            }
            self.step(code)?;
        }
    }

    fn step(&mut self, code: u8) -> Result<(), Reason> {
        match code {
            // Protocol and frame: nothing to do.
            0x80 => self.take(1).map(|_| ())?,
            0x95 => self.take(8).map(|_| ())?,
            b'(' => self.marks.push(self.stack.len()),
            b'0' => self.pop().map(|_| ())?,
            b'N' => self.stack.push(Value::None),
            0x88 => self.stack.push(Value::Bool(true)),
            0x89 => self.stack.push(Value::Bool(false)),
            b'K' | b'M' | b'J' => self.read_int(code)?,
            0x8a => self.read_long()?,
            b'G' => {
                self.take(8)?;
                self.stack.push(Value::Float);
            }
            b'X' | b'T' => self.read_text(4)?,
            0x8c | b'U' => self.read_text(1)?,
            0x8d => self.read_text(8)?,
            b'}' => self.push_container(Value::Dict(Shared::default())),
            b']' => self.push_container(Value::List(Shared::default())),
            b')' => self.push_tuple(Vec::new()),
            b't' => {
                let items = self.pop_mark()?;
                self.push_tuple(items);
            }
            0x85..=0x87 => {
                let count = usize::from(code - 0x84);
                let start = self.stack.len().checked_sub(count).ok_or(EMPTY)?;
                let items = self.stack.split_off(start);
                self.push_tuple(items);
            }
            b'a' => {
                let item = self.pop()?;
                self.extend_list(vec![item])?;
            }
            b'e' => {
                let items = self.pop_mark()?;
                self.extend_list(items)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.extend_dict(vec![key, value])?;
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.extend_dict(items)?;
            }
            b'q' | b'r' | 0x94 => {
                let key = match code {
                    b'q' => self.number(1)?,
                    b'r' => self.number(4)?,
                    _ => self.memo.len(),
                };
                let value = self.stack.last().ok_or(EMPTY)?.clone();
                self.memo.insert(key, value);
            }
            b'h' | b'j' => {
                let key = self.number(if code == b'h' { 1 } else { 4 })?;
                let value = self.memo.get(&key).cloned();
                self.stack.push(value.ok_or("it names what was not kept")?);
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push_global(&module, &name)?;
            }
            0x93 => {
                let (name, module) = (self.pop()?.text(), self.pop()?.text());
                let (module, name) = (module.ok_or(NO_NAME)?, name.ok_or(NO_NAME)?);
                self.push_global(&module, &name)?;
            }
            b'Q' => self.push_storage()?,
            b'R' => {
                let (arguments, function) = (self.pop()?, self.pop()?);
                let arguments = arguments.few_items().ok_or("a function has no arguments")?;
                match rebuild(&function, &arguments)? {
                    made @ Value::Dict(_) => self.push_container(made),
                    made => self.stack.push(made),
                }
            }
            // The state of an object: of a dictionary its `_metadata`, which holds no tensor.
            b'b' => {
                self.pop()?;
                if !matches!(self.stack.last(), Some(Value::Dict(_))) {
                    return Err("an object that is no dictionary has a state".to_owned());
                }
            }
            other => {
                return Err(format!(
                    "its pickle has the code {other:#04x}, which makes no tensor"
                ));
            }
        }
        Ok(())
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Reason> {
        let end = self.at.checked_add(count);
        let bytes = end.and_then(|end| self.bytes.get(self.at..end));
        let bytes = bytes.ok_or("its pickle is cut short")?;
        self.at += count;
        Ok(bytes)
    }

    /// A little-endian number.
    fn number(&mut self, bytes: usize) -> Result<usize, Reason> {
        let bytes = self.take(bytes)?.iter().rev();
        let number = bytes.fold(0u64, |number, &byte| number << 8 | u64::from(byte));
        usize::try_from(number).map_err(|_| format!("{number} is no size"))
    }

    fn line(&mut self) -> Result<String, Reason> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(|&byte| byte == b'\n');
        let end = end.ok_or("its pickle is cut short")?;
        let line = String::from_utf8_lossy(&rest[..end]).into_owned();
        self.at += end + 1;
        Ok(line)
    }

    fn pop(&mut self) -> Result<Value, Reason> {
        Ok(self.stack.pop().ok_or(EMPTY)?)
    }

    fn pop_mark(&mut self) -> Result<Vec<Value>, Reason> {
        let mark = self.marks.pop().filter(|&mark| mark <= self.stack.len());
        Ok(self.stack.split_off(mark.ok_or(EMPTY)?))
    }

    fn push_tuple(&mut self, items: Vec<Value>) {
        self.push_container(Value::Tuple(items.into()));
    }

    fn push_container(&mut self, container: Value) {
        self.containers.push(container.clone());
        self.stack.push(container);
    }

    fn read_int(&mut self, code: u8) -> Result<(), Reason> {
        let value = match code {
            b'K' => self.number(1)? as i64,
            b'M' => self.number(2)? as i64,
            _ => {
                let bytes = self.take(4)?;
                i64::from(i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
            }
        };
        self.stack.push(Value::Int(value));
        Ok(())
    }

    fn read_long(&mut self) -> Result<(), Reason> {
        let length = self.number(1)?;
        let bytes = self.take(length)?;
        let value = match bytes.last() {
            Some(&last) if bytes.len() <= 8 => {
                let sign = if last >= 0x80 { u64::MAX } else { 0 };
                let bits = bytes
                    .iter()
                    .rev()
                    .fold(sign, |n, &byte| n << 8 | u64::from(byte));
                Value::Int(bits as i64)
            }
            Some(_) => Value::Long(bytes.into()),
            None => Value::Int(0),
        };
        self.stack.push(value);
        Ok(())
    }

    fn read_text(&mut self, length_bytes: usize) -> Result<(), Reason> {
        let length = self.number(length_bytes)?;
        let text = String::from_utf8_lossy(self.take(length)?);
        self.stack.push(Value::Text(text.into()));
        Ok(())
    }

    fn extend_list(&mut self, items: Vec<Value>) -> Result<(), Reason> {
        match self.stack.last() {
            Some(Value::List(list)) => list.borrow_mut().extend(items),
            _ => return Err("something is added to what is no list".to_owned()),
        }
        Ok(())
    }

    fn extend_dict(&mut self, items: Vec<Value>) -> Result<(), Reason> {
        let Some(Value::Dict(dict)) = self.stack.last() else {
            return Err("something is added to what is no dictionary".to_owned());
        };
        let mut items = items.into_iter();
        while let (Some(key), Some(value)) = (items.next(), items.next()) {
            dict.borrow_mut().push((key, value));
        }
        Ok(())
    }

    fn push_global(&mut self, module: &str, name: &str) -> Result<(), Reason> {
        let is_known = match module {
            "collections" => name == "OrderedDict",
            "torch._utils" => ["_rebuild_tensor_v2", "_rebuild_parameter"].contains(&name),
            "torch" => name == "Size" || storage_dtype(name).is_some(),
            _ => false,
        };
        if !is_known {
            return Err(format!(
                "it wants `{module}.{name}`, which is more than tensors need"
            ));
        }
        let global = (module.to_owned(), name.to_owned());
        self.stack.push(Value::Global(global.into()));
        Ok(())
    }

    /// `('storage', torch.FloatStorage, key, location, elements)`, and in old files a part of
    /// another storage.
    fn push_storage(&mut self) -> Result<(), Reason> {
        let id = self.pop()?.few_items().unwrap_or_default();
        let wrong = || "a storage is not named as PyTorch names it".to_owned();
        let [
            Value::Text(kind),
            Value::Global(class),
            Value::Text(key),
            _,
            rest @ ..,
        ] = &id[..]
        else {
            return Err(wrong());
        };
        if **kind != *"storage" || matches!(rest, [_, Value::Tuple(_), ..]) {
            return Err(wrong());
        }
        let storage = Storage {
            key: key.clone(),
            dtype: storage_dtype(&class.1).ok_or_else(wrong)?,
        };
        self.storages.push(storage.clone());
        self.stack.push(Value::Storage(storage));
        Ok(())
    }
}

const EMPTY: &str = "its pickle takes what is not there";
const NO_NAME: &str = "a class has no name";

/// What the few known functions make of their arguments.
fn rebuild(function: &Value, arguments: &[Value]) -> Result<Value, Reason> {
    let Value::Global(global) = function else {
        return Err("it calls what is no function".to_owned());
    };
    let (module, name) = &**global;
    match (name.as_str(), arguments) {
        ("OrderedDict", []) => Ok(Value::Dict(Shared::default())),
        ("Size", [sizes @ Value::Tuple(_)]) => Ok(sizes.clone()),
        ("_rebuild_tensor_v2", arguments) => {
            Ok(Value::Tensor(Rc::new(TensorView::rebuild(arguments)?)))
        }
        ("_rebuild_parameter", [tensor @ Value::Tensor(_), ..]) => Ok(tensor.clone()),
        _ => Err(format!("it calls `{module}.{name}` as PyTorch does not")),
    }
}
