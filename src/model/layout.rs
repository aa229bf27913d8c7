use crate::modules::Step;

/// Where the parts of a model lie in its folder, as Sentence Transformers lays them out: what
/// reads texts in the folder itself, each module in one of its own, and a route's parts in
/// folders named after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    /// The folders of what reads texts; empty for the model's own.
    pub(crate) inputs: Vec<String>,
    /// The folders of the modules.
    pub(crate) modules: Vec<String>,
}

impl Layout {
    /// The layout of these steps; `type_name` is that of each.
    pub(crate) fn of(steps: &[Step], type_name: &dyn Fn(&Step) -> &'static str) -> Self {
        let mut layout = Self {
            inputs: Vec::new(),
            modules: Vec::new(),
        };
        for (index, step) in steps.iter().enumerate() {
            layout.place(step, Self::top(index, step, type_name), type_name);
        }
        layout
    }

    /// The folder of a step of the model itself.
    pub(crate) fn top(
        index: usize,
        step: &Step,
        type_name: &dyn Fn(&Step) -> &'static str,
    ) -> String {
        match (index, step) {
            (0, Step::Input(_) | Step::Router(_)) => String::new(),
            _ => format!("{index}_{}", type_name(step)),
        }
    }

    /// The folder of a step of a route, within the router's.
    pub(crate) fn of_route(route: &str, index: usize, type_name: &'static str) -> String {
        format!("{}_{index}_{type_name}", file_name(route))
    }

    /// What stands before the names of a folder's files.
    pub(crate) fn within(folder: &str) -> String {
        match folder {
            "" => String::new(),
            folder => format!("{folder}/"),
        }
    }

    fn place(&mut self, step: &Step, path: String, type_name: &dyn Fn(&Step) -> &'static str) {
        let (places, index) = match step {
            Step::Input(index) => (&mut self.inputs, *index),
            Step::Module(index) => (&mut self.modules, *index),
            Step::Router(router) => {
                for route in router.routes() {
                    for (index, step) in route.steps.iter().enumerate() {
                        let folder = Self::of_route(&route.name, index, type_name(step));
                        self.place(step, format!("{}{folder}", Self::within(&path)), type_name);
                    }
                }
                return;
            }
        };
        if places.len() <= index {
            places.resize(index + 1, String::new());
        }
        // What several routes share lies where the first of them has it.
        if places[index].is_empty() {
            places[index] = path;
        }
    }
}

/// A name that any file system can hold, from any text.
pub(crate) fn file_name(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    let mut name = String::new();
    for (place, byte) in text.bytes().enumerate() {
        // A dot in front hides a file, or means a folder above.
        if is_plain(byte) || (byte == b'.' && place > 0) {
            name.push(char::from(byte));
        } else {
            name.push_str(&format!("%{byte:02X}"));
        }
    }
    match name.is_empty() {
        true => "%".to_owned(),
        false => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modules::Router;

    fn type_name(step: &Step) -> &'static str {
        match step {
            Step::Input(_) => "Transformer",
            Step::Module(_) => "Dense",
            Step::Router(_) => "Router",
        }
    }

    #[test]
    fn parts_lie_where_python_puts_them() {
        let heads = |first| {
            let shared = vec![Step::Input(0), Step::Module(first)];
            Router::for_query_document(shared, vec![Step::Input(0), Step::Module(first + 1)])
        };
        let steps = [Step::Router(heads(0).unwrap()), Step::Module(2)];
        let layout = Layout::of(&steps, &type_name);
        assert_eq!(layout.inputs, ["query_0_Transformer"]);
        assert_eq!(
            layout.modules,
            ["query_1_Dense", "document_1_Dense", "1_Dense"]
        );
        let router = Router::for_query_document(vec![Step::Module(1)], vec![Step::Module(2)]);
        let steps = [
            Step::Input(0),
            Step::Module(0),
            Step::Router(router.unwrap()),
        ];
        let layout = Layout::of(&steps, &type_name);
        assert_eq!(layout.inputs, [""]);
        assert_eq!(
            layout.modules,
            [
                "1_Dense",
                "2_Router/query_0_Dense",
                "2_Router/document_0_Dense"
            ]
        );
    }

    #[test]
    fn any_name_becomes_a_file_s_and_no_two_the_same() {
        let names = [
            "a.b", "../x", "", "%", "a/b", "a%2Fb", "ä", "train", ".", "..",
        ];
        let files: Vec<String> = names.iter().map(|name| file_name(name)).collect();
        assert_eq!(
            files[..6],
            ["a.b", "%2E.%2Fx", "%", "%25", "a%2Fb", "a%252Fb"]
        );
        let mut different = files.clone();
        different.sort();
        different.dedup();
        assert_eq!(different.len(), files.len());
        assert!(
            files
                .iter()
                .all(|file| !file.contains('/') && !file.starts_with('.'))
        );
    }
}
