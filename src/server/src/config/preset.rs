//! The providers that we know: a file each in `conf/providers`, part of the program.

use super::file::Provider;
use super::problem::Problem;
use super::read;

macro_rules! presets {
    ($($name:literal)+) => {
        /// Name and text of every preset, in order of name.
        const PRESETS: &[(&str, &str)] = &[
            $(($name, include_str!(concat!("../../../../conf/providers/", $name, ".toml")))),+
        ];
    };
}

presets!(
    "anthropic" "cerebras" "deepinfra" "deepseek" "fireworks" "gemini" "groq" "minimax" "mistral"
    "moonshot" "openai" "openrouter" "qwen" "together" "xai" "zai"
);

/// The names of all presets, in order.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    PRESETS.iter().map(|(name, _)| *name)
}

/// The preset of that name; `None` if there is none.
pub(super) fn find(name: &str) -> Option<Result<Provider, Problem>> {
    let (_, text) = PRESETS.iter().find(|(preset, _)| *preset == name)?;
    Some(parse(name, text))
}

/// A preset that does not parse is a defect of this program; a test reads them all.
fn parse(name: &str, text: &str) -> Result<Provider, Problem> {
    let defect = |message: &str| Problem::new(format!("conf/providers/{name}.toml"), message);
    let written = read::toml::<Provider>(text).map_err(|problem| defect(&problem.message))?;
    match written.problems.first() {
        Some(problem) => Err(defect(&problem.to_string())),
        None => Ok(written.file),
    }
}
