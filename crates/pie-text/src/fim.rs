//! Filling in the middle, by model: in which order a model wants the two sides of a cursor, between which tokens, and which of its
//! tokens end what it writes there.
//!
//! A family is found by its markers, which are tokens of its own. Mellum has StarCoder's spellings in the other order, and
//! nothing in its files but its name tells the two apart. What the table lacks is said by a setting ([`FimSetting`]).

use pie_words::TokenId;
use std::str::FromStr;

/// Which side of the cursor a model reads first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FimOrder {
    /// The text before the cursor, then the text behind it.
    PrefixFirst,
    /// The text behind the cursor, then the text before it, next to what the model writes.
    SuffixFirst,
}

/// How a model is asked to fill in the middle: `open`, one side, `between`, the other side, `close`; and then it writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fim {
    /// Whose way it is; `the setting` where a template was given.
    pub family: &'static str,
    /// Which side comes first.
    pub order: FimOrder,
    /// Before the first side.
    pub open: Vec<TokenId>,
    /// Between the sides.
    pub between: Vec<TokenId>,
    /// Behind the second side.
    pub close: Vec<TokenId>,
}

/// A family of models.
#[derive(Debug)]
pub(crate) struct Family {
    /// As settings and pages name it.
    name: &'static str,
    order: FimOrder,
    /// The tokens in the order of the prompt: before the first side, between the two, behind the second. Empty: there is none.
    markers: [&'static str; 3],
    /// Tokens besides the markers that end what is written, where they are no text by themselves: between files and around them.
    ends: &'static [&'static str],
    /// Part of a model's name, in small letters, without which it is another family.
    named: Option<&'static str>,
}

use FimOrder::{PrefixFirst, SuffixFirst};

/// What StarCoder and all that took over its spellings put between and around files.
const STARCODER_ENDS: &[&str] = &[
    "<fim_pad>",
    "<file_sep>",
    "<filename>",
    "<repo_name>",
    "<reponame>",
    "<gh_stars>",
    "<issue_start>",
    "<issue_comment>",
    "<issue_closed>",
    "<jupyter_start>",
    "<jupyter_text>",
    "<jupyter_code>",
    "<jupyter_output>",
    "<jupyter_script>",
    "<empty_output>",
    "<commit_before>",
    "<commit_msg>",
    "<commit_after>",
    "<pr>",
];

/// The first whose name and markers a model has is its own. What is written between bars ends a text in every model
/// ([`crate::added`]), and is not named again.
pub(crate) const FAMILIES: [Family; 9] = [
    Family {
        name: "deepseek-coder",
        order: PrefixFirst,
        markers: ["<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"],
        ends: &[],
        named: None,
    },
    // Qwen2.5-Coder and Qwen3-Coder, CodeGemma, Granite from 3.3 on.
    Family {
        name: "qwen",
        order: PrefixFirst,
        markers: ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"],
        ends: &[],
        named: None,
    },
    Family {
        name: "mellum",
        order: SuffixFirst,
        markers: ["<fim_suffix>", "<fim_prefix>", "<fim_middle>"],
        ends: STARCODER_ENDS,
        named: Some("mellum"),
    },
    // StarCoder 1 and 2, Granite Code, StableCode, CodeQwen 1.5, Refact. SmolLM has what parts files, and no markers.
    Family {
        name: "starcoder",
        order: PrefixFirst,
        markers: ["<fim_prefix>", "<fim_suffix>", "<fim_middle>"],
        ends: STARCODER_ENDS,
        named: None,
    },
    Family {
        name: "santacoder",
        order: PrefixFirst,
        markers: ["<fim-prefix>", "<fim-suffix>", "<fim-middle>"],
        ends: &["<fim-pad>"],
        named: None,
    },
    // Zed's Zeta 2 is one of these.
    Family {
        name: "seed-coder",
        order: SuffixFirst,
        markers: ["<[fim-suffix]>", "<[fim-prefix]>", "<[fim-middle]>"],
        ends: &[
            "<filename>",
            "<reponame>",
            "<[begin▁of▁sentence]>",
            "<[end▁of▁sentence]>",
            "<[PAD▁TOKEN]>",
            "<[SEP▁TOKEN]>",
        ],
        named: None,
    },
    // Its own examples end with the prefix, and name no token for the middle.
    Family {
        name: "codestral",
        order: SuffixFirst,
        markers: ["[SUFFIX]", "[PREFIX]", ""],
        ends: &["[MIDDLE]"],
        named: None,
    },
    Family {
        name: "code-llama",
        order: PrefixFirst,
        markers: ["▁<PRE>", "▁<SUF>", "▁<MID>"],
        ends: &["▁<EOT>"],
        named: None,
    },
    // GLM from 4.5 on. CodeGeeX 4 has its spellings in the other order, inside of a chat.
    Family {
        name: "glm",
        order: PrefixFirst,
        markers: ["<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>"],
        ends: &[],
        named: None,
    },
];

impl Family {
    /// The one that a tokenizer's tokens, and its model's name, tell.
    pub(crate) fn of(model: &str, has: impl Fn(&str) -> bool) -> Option<&'static Self> {
        let model = model.to_lowercase();
        let is_named = |family: &&Self| family.named.is_none_or(|part| model.contains(part));
        let has_all = |family: &&Self| family.spelled().all(&has);
        FAMILIES.iter().filter(is_named).find(has_all)
    }

    /// The markers that there are.
    fn spelled(&self) -> impl Iterator<Item = &'static str> {
        self.markers.into_iter().filter(|marker| !marker.is_empty())
    }

    /// All tokens that are no text in models of this family.
    pub(crate) fn tokens(&self) -> impl Iterator<Item = &'static str> {
        self.spelled().chain(self.ends.iter().copied())
    }

    /// How it is asked, in these tokens; `None` if one is missing.
    fn fim(&self, id: impl Fn(&str) -> Option<TokenId>) -> Option<Fim> {
        let run = |marker: &str| if marker.is_empty() { Some(Vec::new()) } else { Some(vec![id(marker)?]) };
        let [open, between, close] = self.markers.map(run);
        let (open, between, close) = (open?, between?, close?);
        Some(Fim { family: self.name, order: self.order, open, between, close })
    }
}

/// Whether a token is one of any family's markers.
pub(crate) fn is_marker(content: &str) -> bool {
    FAMILIES.iter().flat_map(Family::spelled).any(|marker| marker == content)
}

/// How to fill in the middle, as somebody said it: a family's name, or a template such as
/// `<PRE>{prefix}<SUF>{suffix}<MID>`, whose two words in braces stand for the sides of the cursor.
#[derive(Clone, Debug)]
pub enum FimSetting {
    /// As this family, whatever the model's name is.
    Family(FimFamily),
    /// As it is written.
    Template(FimTemplate),
}

/// A family of the table.
#[derive(Clone, Copy, Debug)]
pub struct FimFamily(pub(crate) &'static Family);

/// What stands around the two sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FimTemplate {
    order: FimOrder,
    literals: [String; 3],
}

/// Why a setting says nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{setting:?} does not say how to fill in the middle: {what}; write a template with {{prefix}} and \
     {{suffix}}, such as '<PRE>{{prefix}}<SUF>{{suffix}}<MID>', or one of: {}", names().join(", ")
)]
pub struct FimError {
    setting: String,
    what: &'static str,
}

impl FimError {
    /// The stable code of this error.
    pub fn code(&self) -> &'static str {
        "FIM_TEMPLATE_INVALID"
    }
}

fn names() -> Vec<&'static str> {
    FAMILIES.iter().map(|family| family.name).collect()
}

impl FromStr for FimSetting {
    type Err = FimError;

    fn from_str(setting: &str) -> Result<Self, FimError> {
        let wrong = |what| FimError { setting: setting.to_owned(), what };
        let (prefix, suffix) = ("{prefix}", "{suffix}");
        let (before, behind) = match (setting.find(prefix), setting.find(suffix)) {
            (None, None) => {
                let named = FAMILIES.iter().find(|family| family.name == setting);
                let family = named.ok_or_else(|| wrong("it names neither side, and no family of models"))?;
                return Ok(Self::Family(FimFamily(family)));
            }
            (Some(before), Some(behind)) => (before, behind),
            (Some(_), None) => return Err(wrong("it lacks {suffix}")),
            (None, Some(_)) => return Err(wrong("it lacks {prefix}")),
        };
        if setting.matches(prefix).count() + setting.matches(suffix).count() > 2 {
            return Err(wrong("each side stands in it once"));
        }
        let order = if before < behind { PrefixFirst } else { SuffixFirst };
        let (first, second) = (before.min(behind), before.max(behind));
        // Both words have as many bytes.
        let (open, rest) = (&setting[..first], first + prefix.len());
        let (between, close) = (&setting[rest..second], &setting[second + suffix.len()..]);
        if between.is_empty() {
            return Err(wrong("nothing parts the two sides"));
        }
        Ok(Self::Template(FimTemplate { order, literals: [open, between, close].map(str::to_owned) }))
    }
}

/// How a model is asked, and which of its tokens are no text on that account.
pub(crate) struct FimSupport {
    /// How it is asked; nothing where the model does not fill in the middle.
    pub fim: Option<Fim>,
    /// Spellings of tokens that text never becomes.
    pub control: Vec<String>,
}

impl FimSupport {
    /// By the setting, or, without one, by the table.
    pub(crate) fn of(
        inner: &tokenizers::Tokenizer,
        model: &str,
        setting: Option<&FimSetting>,
    ) -> Result<Self, String> {
        let id = |content: &str| inner.token_to_id(content).map(TokenId);
        let of_family = |family: &Family| {
            let control = family.tokens().map(str::to_owned).collect();
            Self { fim: family.fim(id), control }
        };
        match setting {
            None => {
                let family = Family::of(model, |marker| inner.token_to_id(marker).is_some());
                Ok(family.map_or(Self { fim: None, control: Vec::new() }, of_family))
            }
            Some(FimSetting::Family(FimFamily(family))) => {
                match family.spelled().find(|marker| id(marker).is_none()) {
                    Some(missing) => Err(format!(
                        "it has no token {missing}, by which {} models fill in the middle (--fim)",
                        family.name
                    )),
                    None => Ok(of_family(family)),
                }
            }
            Some(FimSetting::Template(template)) => template.found(inner),
        }
    }
}

impl FimTemplate {
    /// Each literal is cut as the tokenizers crate cuts text with control tokens: where it spells one it is that, the rest are
    /// tokens of text.
    fn found(&self, inner: &tokenizers::Tokenizer) -> Result<FimSupport, String> {
        let mut control = Vec::new();
        let added = inner.get_added_tokens_decoder();
        let mut run = |literal: &String| {
            let cut = inner.encode_fast(literal.as_str(), false).map_err(|error| error.to_string())?;
            if cut.get_ids().is_empty() && !literal.is_empty() {
                return Err(format!("it has no tokens for {literal:?}, which --fim names"));
            }
            let mut ids = Vec::new();
            for id in cut.get_ids() {
                // Runs of white space are text, whatever stands around them.
                let marker = added.get(id).filter(|token| !token.content.trim().is_empty());
                control.extend(marker.map(|token| token.content.clone()));
                ids.push(TokenId(*id));
            }
            Ok(ids)
        };
        let [open, between, close] = &self.literals;
        let (open, between, close) = (run(open)?, run(between)?, run(close)?);
        Ok(FimSupport {
            fim: Some(Fim { family: "the setting", order: self.order, open, between, close }),
            control,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_taken_apart_and_wrong_ones_say_why() {
        let parts = |setting: &str| match setting.parse() {
            Ok(FimSetting::Template(FimTemplate { order, literals })) => (order, literals.join("|")),
            other => panic!("{setting}: {other:?}"),
        };
        assert_eq!(parts("<PRE>{prefix}<SUF>{suffix}<MID>"), (PrefixFirst, "<PRE>|<SUF>|<MID>".into()));
        assert_eq!(parts("[S]{suffix}[P]{prefix}"), (SuffixFirst, "[S]|[P]|".into()));
        assert_eq!(parts("{prefix} {x} {suffix}"), (PrefixFirst, "| {x} |".into()));
        for (setting, part) in [
            ("<PRE>{prefix}<SUF>", "lacks {suffix}"),
            ("{suffix}", "lacks {prefix}"),
            ("{prefix}{suffix}<MID>", "parts the two sides"),
            ("a{prefix}b{suffix}c{prefix}", "once"),
            ("starcodr", "no family"),
        ] {
            let error = setting.parse::<FimSetting>().expect_err(setting).to_string();
            assert!(error.contains(part), "{error}");
            assert!(
                error.contains("'<PRE>{prefix}<SUF>{suffix}<MID>'") && error.contains("seed-coder"),
                "{error}"
            );
        }
    }

    /// docs/models.md tells people what stands here.
    #[test]
    fn the_page_has_every_family() {
        let page = include_str!("../../../docs/models.md");
        for Family { name, order, markers: [open, between, close], ends, .. } in &FAMILIES {
            let sides =
                if *order == PrefixFirst { ["{prefix}", "{suffix}"] } else { ["{suffix}", "{prefix}"] };
            let row = page.lines().find(|line| line.starts_with(&format!("| `{name}`"))).expect(name);
            // A bar within a table's cell is escaped.
            let row = row.replace("\\|", "|");
            let template = format!("`{open}{}{between}{}{close}`", sides[0], sides[1]);
            assert!(row.contains(&template), "{row} has another template than {template}");
            let is_there =
                |end: &&str| *ends == STARCODER_ENDS || row.contains(*end) || end.ends_with("▁of▁sentence]>");
            assert_eq!(ends.iter().find(|end| !is_there(end)), None, "{row}");
        }
    }

    /// Two families are told apart by markers or by name, and each can be named.
    #[test]
    fn every_family_is_found_by_its_own_markers() {
        for family in &FAMILIES {
            let model = format!("Org/{}-4b", family.named.unwrap_or("model").to_uppercase());
            let found =
                Family::of(&model, |token| family.tokens().any(|own| own == token)).expect(family.name);
            assert_eq!(found.name, family.name);
            assert!(
                matches!(family.name.parse(), Ok(FimSetting::Family(FimFamily(named))) if named.name == family.name)
            );
        }
        assert!(
            Family::of("mellum", |token| token != "<fim_middle>" && token.starts_with("<fim_")).is_none()
        );
    }
}
