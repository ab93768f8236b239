//! A prompt as both protocols take it: a text, tokens, or lists of these. It is read as it comes, so that a long list of tokens takes no more
//! memory than its tokens, and lists in lists in lists take none.

use crate::error::ApiError;
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;

/// What a request has as its prompt, or prompts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum GivenPrompt {
    /// A text.
    Text(String),
    /// A list.
    List(Vec<PromptPart>),
}

/// A part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PromptPart {
    /// Tokens that stand side by side.
    Tokens(Vec<u32>),
    /// A text.
    Text(String),
    /// A list in it, which has none in it.
    List(Vec<PromptPart>),
}

impl GivenPrompt {
    /// The parts of the one prompt, tokens and texts. As llama.cpp reads lists: one with a token in it is a prompt, and one of texts and
    /// lists is as many prompts.
    ///
    /// # Errors
    /// There are several, or none.
    pub fn one(self) -> Result<Vec<PromptPart>, ApiError> {
        let mut parts = match self {
            Self::Text(text) => return Ok(vec![PromptPart::Text(text)]),
            Self::List(parts) => parts,
        };
        if parts.iter().any(|part| matches!(part, PromptPart::Tokens(_))) {
            if parts.iter().any(|part| matches!(part, PromptPart::List(_))) {
                return Err(ApiError::bad("prompt", "`prompt`: a prompt of tokens has no list in it"));
            }
            return Ok(parts);
        }
        match (parts.pop(), parts.is_empty()) {
            (None, _) => {
                Err(ApiError::bad("prompt", "`prompt` is an empty list: there is nothing to continue"))
            }
            (Some(PromptPart::List(list)), true) => Ok(list),
            (Some(part), true) => Ok(vec![part]),
            (Some(_), false) => Err(ApiError::one_prompt()),
        }
    }
}

/// What stands in a list: `LISTS` says whether lists may.
enum Element<const LISTS: bool> {
    Token(u32),
    Part(PromptPart),
}

impl<'de, const LISTS: bool> Deserialize<'de> for Element<LISTS> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ElementVisitor::<LISTS>)
    }
}

struct ElementVisitor<const LISTS: bool>;

impl<'de, const LISTS: bool> Visitor<'de> for ElementVisitor<LISTS> {
    type Value = Element<LISTS>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a token or a text")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        u32::try_from(number).map(Element::Token).map_err(|_| E::custom(format!("{number} is no token")))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Self::Value, E> {
        let is_token = number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number);
        if is_token {
            Ok(Element::Token(number as u32))
        } else {
            Err(E::custom(format!("{number} is no token")))
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Element::Part(PromptPart::Text(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
        if !LISTS {
            return Err(A::Error::custom("lists of lists of lists are no prompts"));
        }
        Ok(Element::Part(PromptPart::List(gathered::<A, false>(list)?)))
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<Self::Value, A::Error> {
        Ok(Element::Part(PromptPart::Text(prompt_string(object)?)))
    }
}

fn gathered<'de, A: SeqAccess<'de>, const LISTS: bool>(mut list: A) -> Result<Vec<PromptPart>, A::Error> {
    let mut parts = Vec::new();
    while let Some(element) = list.next_element::<Element<LISTS>>()? {
        match (element, parts.last_mut()) {
            (Element::Token(token), Some(PromptPart::Tokens(tokens))) => tokens.push(token),
            (Element::Token(token), _) => parts.push(PromptPart::Tokens(vec![token])),
            (Element::Part(part), _) => parts.push(part),
        }
    }
    Ok(parts)
}

/// llama.cpp takes an object with a text and with pictures, of which there are none here.
fn prompt_string<'de, A: MapAccess<'de>>(mut object: A) -> Result<String, A::Error> {
    let mut text = None;
    while let Some(name) = object.next_key::<String>()? {
        if name != "prompt_string" {
            return Err(A::Error::custom(format!(
                "a prompt that is an object has `prompt_string` alone, not {name:?}"
            )));
        }
        text = Some(object.next_value()?);
    }
    text.ok_or_else(|| A::Error::missing_field("prompt_string"))
}

impl<'de> Deserialize<'de> for GivenPrompt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(GivenVisitor)
    }
}

struct GivenVisitor;

impl<'de> Visitor<'de> for GivenVisitor {
    type Value = GivenPrompt;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, or a list of tokens")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(GivenPrompt::Text(text.to_owned()))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Self::Value, E> {
        Ok(GivenPrompt::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
        Ok(GivenPrompt::List(gathered::<A, true>(list)?))
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<Self::Value, A::Error> {
        Ok(GivenPrompt::Text(prompt_string(object)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_llama_cpp_reads_them() {
        let text = |text: &str| PromptPart::Text(text.to_owned());
        let tokens = |tokens: &[u32]| PromptPart::Tokens(tokens.to_vec());
        let of = |json: &str| serde_json::from_str::<GivenPrompt>(json).map(GivenPrompt::one);
        let cases = [
            (r#""a""#, vec![text("a")]),
            (r#"["a"]"#, vec![text("a")]),
            (r#"[["a"]]"#, vec![text("a")]),
            (r#"{"prompt_string": "a"}"#, vec![text("a")]),
            (r#"[{"prompt_string": "a"}]"#, vec![text("a")]),
            ("[1, 2.0, 3]", vec![tokens(&[1, 2, 3])]),
            ("[[1, 2]]", vec![tokens(&[1, 2])]),
            (r#"[1, "a", 2, 3]"#, vec![tokens(&[1]), text("a"), tokens(&[2, 3])]),
            (r#"[["a", 1]]"#, vec![text("a"), tokens(&[1])]),
        ];
        for (json, parts) in cases {
            assert_eq!(of(json).expect("it is read").expect("it is one"), parts, "{json}");
        }
        for several in [r#"["a", "b"]"#, "[[1], [2]]", r#"[[1], "a"]"#, "[]", "[1, [2]]"] {
            assert!(of(several).expect("it is read").is_err(), "{several}");
        }
        let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
        for no_prompt in ["5", "[[[1]]]", "[-1]", "[1.5]", "[4294967296]", r#"{"other": 1}"#, "[true]", &deep]
        {
            assert!(of(no_prompt).is_err(), "{no_prompt}");
        }
    }
}
