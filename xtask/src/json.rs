//! As much of JSON as it takes to read what cargo says.

/// The first string called `name` in a piece of JSON as cargo writes it: no white space, and nothing in a path to be
/// unescaped but quotes and backslashes.
pub(crate) fn string_field(json: &str, name: &str) -> Option<String> {
    let (_, rest) = json.split_once(&format!("\"{name}\":\""))?;
    let mut value = String::new();
    let mut characters = rest.chars();
    loop {
        match characters.next()? {
            '"' => return Some(value),
            '\\' => value.push(characters.next()?),
            character => value.push(character),
        }
    }
}
