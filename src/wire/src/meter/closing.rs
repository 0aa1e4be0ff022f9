//! What the edge itself writes at the end of a stream that is whole but for its end.

use bytes::Bytes;
use tokenroute_domain::usage::Usage;

use super::identity::Identity;

/// A report of usage, if one is due, and `[DONE]`.
pub(super) fn write(identity: Option<&Identity>, usage: Option<&Usage>) -> Bytes {
    let mut out = String::new();
    if let Some(usage) = usage {
        out.push_str("data: {");
        for (name, value) in identity.into_iter().flat_map(Identity::members) {
            out.push_str(&["\"", name, "\":", value, ","].concat());
        }
        let usage = write_usage(usage.input_total(), usage.output_total());
        out.push_str(&["\"choices\":[],\"usage\":", &usage, "}\n\n"].concat());
    }
    out.push_str("data: [DONE]\n\n");
    out.into()
}

/// A usage object of counts alone.
pub(super) fn write_usage(input: u64, output: u64) -> String {
    let total = input.saturating_add(output);
    format!("{{\"prompt_tokens\":{input},\"completion_tokens\":{output},\"total_tokens\":{total}}}")
}
