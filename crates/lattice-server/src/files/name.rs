//! Names of files as clients give them.

use std::path::{Component, Path, PathBuf};

/// A folder that clients name files in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Root {
    Input,
    Output,
    Temp,
}

impl Root {
    /// The root of that name.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        match name {
            "input" => Some(Self::Input),
            "output" => Some(Self::Output),
            "temp" => Some(Self::Temp),
            _ => None,
        }
    }
}

/// Splits `name [root]`.
pub(crate) fn split_annotation(name: &str) -> Option<(&str, Root)> {
    let (file, mark) = name.strip_suffix(']')?.rsplit_once('[')?;
    Some((file.trim_end(), Root::from_name(mark)?))
}

/// A relative path made plain: `.` gone, `..` resolved where it stays inside. An empty path is the folder itself. None
/// where the path would leave its folder on some system, or names something that is no file there.
pub(crate) fn inside(path: &str) -> Option<PathBuf> {
    if path.contains('\\') || path.chars().any(char::is_control) {
        return None;
    }
    let mut plain = PathBuf::new();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(part) => {
                if reserved(part.to_str()?) {
                    return None;
                }
                plain.push(part);
            }
            Component::CurDir => {}
            Component::ParentDir => {
                if !plain.pop() {
                    return None;
                }
            }
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(plain)
}

/// Whether Windows takes the name for a device or a drive.
fn reserved(name: &str) -> bool {
    let stem = name.split(['.', ':']).next().unwrap_or_default().trim_end().to_ascii_uppercase();
    let numbered = |device: &str| {
        stem.strip_prefix(device)
            .is_some_and(|number| number.len() == 1 && number.as_bytes()[0].is_ascii_digit())
    };
    let drive = name.as_bytes().first().is_some_and(u8::is_ascii_alphabetic) && name[1..].starts_with(':');
    drive || matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL") || numbered("COM") || numbered("LPT")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside() {
        for (path, expected) in [
            ("a.png", Some("a.png")),
            ("a/./b//c.png", Some("a/b/c.png")),
            ("a/../b", Some("b")),
            ("", Some("")),
            ("ü [1] 10:30.png", Some("ü [1] 10:30.png")),
            ("..", None),
            ("a/../../b", None),
            ("/etc/passwd", None),
            ("a\\b", None),
            ("a\0b", None),
            ("a\nb", None),
            ("C:/x", None),
            ("c:x", None),
            ("sub/NUL", None),
            ("nul.txt", None),
            ("com1", None),
            ("COM1.png", None),
            ("common.png", Some("common.png")),
        ] {
            assert_eq!(inside(path), expected.map(PathBuf::from), "{path:?}");
        }
    }

    #[test]
    fn annotations_name_a_root() {
        assert_eq!(split_annotation("a b.png [temp]"), Some(("a b.png", Root::Temp)));
        assert_eq!(split_annotation("a [other]"), None);
        assert_eq!(split_annotation("a.png"), None);
    }
}
