//! The bodies of the journal's frames, written member by member as `entry` reads them.

use tokenroute_domain::id::CallId;
use tokenroute_domain::journal::{Due, Ended, Intent, Mark};

use crate::record_text::write::{
    flag, list, plain, purses, record, signed, text, unsigned, usage, word,
};

/// A call's intent.
pub(super) fn intent(intent: &Intent, out: &mut Vec<u8>) {
    plain(out, "{\"call\":\"");
    intent.call.push_to(out);
    plain(out, "\",\"started\":");
    unsigned(out, intent.started.micros());
    plain(out, ",\"endpoint\":");
    word(out, intent.endpoint.as_str());
    plain(out, ",\"key\":\"");
    intent.key.push_to(out);
    plain(out, "\",\"account\":\"");
    intent.account.push_to(out);
    plain(out, "\",\"prepaid\":");
    flag(out, intent.prepaid);
    plain(out, ",\"model\":");
    text(out, &intent.model);
    plain(out, ",\"hold\":");
    signed(out, intent.hold.0);
    purses(out, &intent.purses);
    out.push(b'}');
}

/// How far a call has come.
pub(super) fn mark(mark: &Mark, out: &mut Vec<u8>) {
    plain(out, "{\"call\":\"");
    mark.call.push_to(out);
    plain(out, "\",\"usage\":");
    usage(out, &mark.usage);
    plain(out, ",\"cost\":");
    signed(out, mark.cost.0);
    plain(out, ",\"target\":");
    text(out, &mark.target);
    plain(out, ",\"streamed\":");
    flag(out, mark.streamed);
    plain(out, ",\"reported\":");
    flag(out, mark.reported);
    out.push(b'}');
}

/// A call that is over.
pub(super) fn ended(ended: &Ended, out: &mut Vec<u8>) {
    plain(out, "{\"record\":");
    record(out, &ended.record);
    if let Some(Due { charge, purses: under }) = &ended.due {
        plain(out, ",\"due\":{\"charge\":");
        signed(out, charge.0);
        purses(out, under);
        out.push(b'}');
    }
    out.push(b'}');
}

/// A list of calls.
pub(super) fn calls(calls: &[CallId], out: &mut Vec<u8>) {
    list(out, calls, |out, call| {
        out.push(b'"');
        call.push_to(out);
        out.push(b'"');
    });
}
