//! The documentation for whoever reads without a browser: `/llms.txt` says what there is, `/llms-full.txt` is all
//! of it, and each document has an address. Made of `docs/` when the program is built.

use std::fmt::Write as _;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use tokenroute_api::error::ErrorBody;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::Refused;
use crate::Parts;
use crate::app::Problem;

/// A document of `docs/`.
struct Document {
    name: &'static str,
    text: &'static str,
}

macro_rules! documents {
    ($($name:literal),* $(,)?) => {
        [$(Document { name: $name, text: include_str!(concat!("../../../../docs/", $name)) }),*]
    };
}

/// For who uses a gateway.
const FOR_USERS: [Document; 3] = documents!["cli.md", "status-codes.md", "limits.md"];
/// For who runs one or works on it.
const FOR_OTHERS: [Document; 8] = documents![
    "identity.md",
    "ARCHITECTURE.md",
    "adding-a-provider.md",
    "adding-an-endpoint.md",
    "hardening.md",
    "performance.md",
    "settings.md",
    "STYLE.md",
];

/// What a gateway is, for who has never heard of it.
const SUMMARY: &str = "\
# tokenroute

> An OpenAI-compatible gateway to many model providers: one address and one kind of key. Change the base URL and
> the key of an OpenAI SDK, and nothing else.
";

pub(super) fn routes() -> OpenApiRouter<Parts> {
    OpenApiRouter::new().routes(routes!(index)).routes(routes!(all)).routes(routes!(document))
}

/// A document's title and the first paragraph below it, in one line.
fn heading(text: &str) -> (&str, String) {
    let (title, rest) = text.split_once('\n').unwrap_or((text, ""));
    let begins = |line: &&str| !line.trim().is_empty() && !line.starts_with('#');
    let lines = rest.lines().skip_while(|line| !begins(line)).take_while(begins);
    (title.trim_start_matches("# "), lines.collect::<Vec<_>>().join(" "))
}

/// The index, for a gateway that is found at `here` and is called at `inference`.
fn listed(here: &str, inference: &str) -> String {
    let mut text = SUMMARY.to_owned();
    let list = |text: &mut String, heading_text: &str, documents: &[Document]| {
        let _always_fits = write!(text, "\n## {heading_text}\n\n");
        for Document { name, text: body } in documents {
            let (title, summary) = heading(body);
            let _always_fits = writeln!(text, "- [{title}]({here}/docs/{name}): {summary}");
        }
    };
    let _always_fits = write!(
        text,
        "\n- Models are called at {inference} (chat/completions, completions, embeddings, responses, messages, models).\n\
         - Keys, credit and usage are managed at {here}/api/v1; [the OpenAPI document]({here}/openapi.json) is generated from the code.\n\
         - [All documents in one]({here}/llms-full.txt)\n",
    );
    list(&mut text, "Documents", &FOR_USERS);
    list(&mut text, "Optional", &FOR_OTHERS);
    text
}

/// Every document, one after the other.
fn whole() -> String {
    let mut text = SUMMARY.to_owned();
    for Document { name, text: body } in FOR_USERS.iter().chain(&FOR_OTHERS) {
        let _always_fits = write!(text, "\n---\n\n<!-- docs/{name} -->\n\n{body}");
    }
    text
}

fn plain(text: impl IntoResponse) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}

/// What documentation there is, for programs that read (llmstxt.org).
#[utoipa::path(
    get, path = "/llms.txt", tag = "documentation",
    responses((status = 200, body = str, content_type = "text/plain"))
)]
async fn index(State(parts): State<Parts>) -> Response {
    plain(listed(&parts.settings.public_url, &parts.settings.inference_base_url))
}

/// All documentation in one text.
#[utoipa::path(
    get, path = "/llms-full.txt", tag = "documentation",
    responses((status = 200, body = str, content_type = "text/plain"))
)]
async fn all() -> Response {
    plain(whole())
}

/// One document.
#[utoipa::path(
    get, path = "/docs/{name}", tag = "documentation",
    params(("name" = String, Path, description = "such as `cli.md`")),
    responses(
        (status = 200, body = str, content_type = "text/markdown"),
        (status = 404, description = "there is no such document", body = ErrorBody),
    )
)]
async fn document(name: Result<Path<String>, PathRejection>) -> Result<Response, Refused> {
    let named = |document: &&Document| name.as_ref().is_ok_and(|name| name.0 == document.name);
    let found = FOR_USERS.iter().chain(&FOR_OTHERS).find(named);
    let found = found.ok_or(Refused(Problem::NotFound("document")))?;
    Ok(([(header::CONTENT_TYPE, "text/markdown; charset=utf-8")], found.text).into_response())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_document_of_the_folder_is_served() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs");
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        let there: BTreeSet<_> = files
            .map(|name| name.into_string().unwrap())
            .filter(|name| name.strip_suffix(".md").is_some())
            .collect();
        let served = FOR_USERS.iter().chain(&FOR_OTHERS).map(|one| one.name.to_owned()).collect();
        assert_eq!(there, served);
    }

    #[test]
    fn the_index_names_each_with_its_title_and_what_it_begins_with() {
        let text = listed("https://gateway.example.com", "https://gateway.example.com/v1");
        assert!(text.contains(
            "- [The command line](https://gateway.example.com/docs/cli.md): `tokenroute` gets a person"
        ));
        assert!(text.contains("called at https://gateway.example.com/v1 ("));
        for Document { name, text: body } in FOR_USERS.iter().chain(&FOR_OTHERS) {
            let (title, summary) = heading(body);
            assert!(!title.is_empty() && !title.contains('#'), "{name}");
            assert!(summary.len() > 20, "{name} does not begin with what it is: {summary}");
        }
    }

    #[test]
    fn the_whole_has_every_document_to_its_last_line() {
        let text = whole();
        for Document { text: body, .. } in FOR_USERS.iter().chain(&FOR_OTHERS) {
            assert!(text.contains(body.trim_end().lines().next_back().unwrap()));
        }
    }
}
