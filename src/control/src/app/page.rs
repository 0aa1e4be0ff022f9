//! Pages of lists: so many at a time, each page after the last one's cursor.

use super::Problem;
use super::text::invalid;

/// Most entries of a page.
pub(crate) const LIMIT_MAX: u32 = 200;
/// Entries of a page, where nothing is said.
pub(crate) const LIMIT: u32 = 50;

/// Which page.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Page<'a> {
    /// What the page before said.
    pub(crate) cursor: Option<&'a str>,
    /// How many.
    pub(crate) limit: Option<u32>,
}

impl Page<'_> {
    /// How many entries it may have.
    pub(crate) fn limit(&self) -> Result<u32, Problem> {
        let limit = self.limit.unwrap_or(LIMIT);
        if (1..=LIMIT_MAX).contains(&limit) {
            return Ok(limit);
        }
        Err(invalid("limit_invalid", "limit", format!("limit: write 1 to {LIMIT_MAX}")))
    }

    /// Where it goes on.
    pub(crate) fn after<T>(&self, read: impl Fn(&str) -> Option<T>) -> Result<Option<T>, Problem> {
        let read = |text| {
            let message = "cursor: take what the page before said as next_cursor";
            read(text).ok_or_else(|| invalid("cursor_invalid", "cursor", message))
        };
        self.cursor.map(read).transpose()
    }

    /// What asks for the page after this one, which was read one entry longer than `limit`; takes the
    /// entry away.
    pub(crate) fn next<T>(
        all: &mut Vec<T>,
        limit: u32,
        cursor: impl Fn(&T) -> String,
    ) -> Option<String> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        if all.len() <= limit {
            return None;
        }
        all.truncate(limit);
        all.last().map(cursor)
    }
}

/// A number as a cursor, if it is written as we write it.
pub(crate) fn number<T: std::str::FromStr + ToString>(text: &str) -> Option<T> {
    text.parse::<T>().ok().filter(|number| number.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_says_what_comes_after_it() {
        let mut all = vec![1, 2, 3];
        assert_eq!(Page::next(&mut all, 3, ToString::to_string), None);
        assert_eq!(Page::next(&mut all, 2, ToString::to_string), Some("2".to_owned()));
        assert_eq!(all, [1, 2]);
    }

    #[test]
    fn limits_and_cursors_are_held() {
        let page = |limit| Page { cursor: None, limit: Some(limit) };
        assert!(page(0).limit().is_err() && page(LIMIT_MAX + 1).limit().is_err());
        assert!(matches!(page(LIMIT_MAX).limit(), Ok(LIMIT_MAX)));
        let page = Page { cursor: Some("+7"), limit: None };
        assert!(page.after(number::<u64>).is_err());
        let page = Page { cursor: Some("7"), limit: None };
        assert!(matches!(page.after(number::<u64>), Ok(Some(7))));
    }
}
