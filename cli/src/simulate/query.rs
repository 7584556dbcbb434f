//! Reads the feed's query string and writes the parts of an answer that follow from it.
//!
//! A question upstream would refuse is refused here too, in upstream's words; nothing is guessed.

use std::collections::HashSet;

use jiff::Timestamp;
use serde_json::{Value, json};
use url::form_urlencoded;

use super::{feed::FeedQuery, number::Organisasjonsnummer};

/// The paging window: no page may reach past this many items.
const WINDOW_ITEMS: usize = 10_000;
const DEFAULT_PAGE_ITEMS: usize = 20;

/// A parameter that cannot be used, and why.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadParameter {
    parameter: String,
    value: String,
    reason: &'static str,
}

impl BadParameter {
    pub(super) fn new(parameter: &str, value: &str, reason: &'static str) -> Self {
        Self { parameter: parameter.to_owned(), value: value.to_owned(), reason }
    }

    /// The body of the 400 answer.
    pub(super) fn body(&self, path: &str) -> Value {
        json!({
            "tidsstempel": Timestamp::now().as_millisecond(),
            "status": 400,
            "feilmelding": "Feilaktig forespørsel",
            "sti": path,
            "antallValideringsfeil": 1,
            "valideringsfeil": [{
                "feilmelding": self.reason,
                "parametere": [self.parameter],
                "feilaktigVerdi": self.value,
            }],
        })
    }
}

/// Reads a feed question. Parameters nobody knows are passed over, as upstream does.
pub(super) fn parse(query: &str) -> Result<FeedQuery, BadParameter> {
    let mut asked = FeedQuery {
        first_id: None,
        last_id: None,
        from_ms: None,
        before_ms: None,
        numbers: None,
        include_changes: false,
        page: 0,
        size: DEFAULT_PAGE_ITEMS,
        newest_first: false,
    };
    for (parameter, value) in form_urlencoded::parse(query.as_bytes()) {
        set(&mut asked, &parameter, &value).map_err(|reason| BadParameter::new(&parameter, &value, reason))?;
    }
    let end = asked.page.saturating_add(1).saturating_mul(asked.size);
    if end > WINDOW_ITEMS {
        let reason = "(page + 1) * size kan ikke overstige 10000";
        return Err(BadParameter::new("page", &asked.page.to_string(), reason));
    }
    Ok(asked)
}

fn set(asked: &mut FeedQuery, parameter: &str, value: &str) -> Result<(), &'static str> {
    match parameter {
        "oppdateringsid" => {
            let id = value.parse().ok().filter(|id| *id >= 1);
            asked.first_id = Some(id.ok_or("oppdateringsid må være et heltall fra 1")?);
        }
        "dato" => asked.from_ms = Some(moment(value)?),
        "updatedBefore" => asked.before_ms = Some(moment(value)?),
        "organisasjonsnummer" => {
            let numbers = asked.numbers.get_or_insert_with(HashSet::new);
            for text in value.split(',') {
                let number = Organisasjonsnummer::parse(text.trim());
                numbers.insert(number.ok_or("organisasjonsnummer må være ni siffer")?);
            }
        }
        "includeChanges" => {
            asked.include_changes = value.parse().map_err(|_| "includeChanges må være true eller false")?;
        }
        "page" => asked.page = value.parse().map_err(|_| "page må være et heltall fra 0")?,
        "size" => {
            let size = value.parse().ok();
            asked.size = size.filter(|size| (1..=WINDOW_ITEMS).contains(size)).ok_or("size må være et heltall fra 1 til 10000")?;
        }
        "sort" => asked.newest_first = newest_first(value)?,
        _ => {}
    }
    Ok(())
}

fn moment(value: &str) -> Result<i64, &'static str> {
    value.parse::<Timestamp>().map(Timestamp::as_millisecond).map_err(|_| "må være på formen yyyy-MM-dd'T'HH:mm:ss.SSS'Z'")
}

fn newest_first(value: &str) -> Result<bool, &'static str> {
    let (field, direction) = value.split_once(',').unwrap_or((value, "ASC"));
    if !matches!(field, "id" | "oppdateringsid") {
        return Err("sort må være id,ASC eller id,DESC");
    }
    match direction {
        "ASC" | "asc" => Ok(false),
        "DESC" | "desc" => Ok(true),
        _ => Err("sort må være id,ASC eller id,DESC"),
    }
}

/// The `page` object of an answer.
pub(super) fn page_object(asked: &FeedQuery, total: usize) -> Value {
    json!({
        "size": asked.size,
        "totalElements": total,
        "totalPages": total.div_ceil(asked.size),
        "number": asked.page,
    })
}

/// The `_links` object of an answer. Only pages inside the window are linked to.
pub(super) fn links(url: &str, query: &str, asked: &FeedQuery, total: usize) -> Value {
    let pages = total.div_ceil(asked.size).min(WINDOW_ITEMS / asked.size);
    let linked = |page: usize| json!({"href": with_page(url, query, page)});
    let this = if query.is_empty() { url.to_owned() } else { format!("{url}?{query}") };
    let mut links = json!({"self": {"href": this}});
    if pages > 1 || asked.page > 0 {
        links["first"] = linked(0);
        links["last"] = linked(pages.saturating_sub(1));
    }
    if asked.page > 0 {
        links["prev"] = linked(asked.page - 1);
    }
    if asked.page + 1 < pages {
        links["next"] = linked(asked.page + 1);
    }
    links
}

fn with_page(url: &str, query: &str, page: usize) -> String {
    let mut pairs = form_urlencoded::Serializer::new(String::new());
    pairs.extend_pairs(form_urlencoded::parse(query.as_bytes()).filter(|(parameter, _)| parameter != "page"));
    pairs.append_pair("page", &page.to_string());
    format!("{url}?{}", pairs.finish())
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn the_window_ends_at_ten_thousand_items() {
        assert!(parse("size=10000").is_ok());
        assert!(parse("page=9&size=1000").is_ok());
        for outside in ["size=10001", "page=10&size=1000", "page=1&size=10000", "size=0"] {
            assert!(parse(outside).is_err(), "{outside}");
        }
        assert!(parse(&format!("page={}", usize::MAX)).is_err());
    }

    #[test]
    fn every_parameter_is_read() {
        let asked = parse(
            "oppdateringsid=7&dato=2025-01-01T00:00:00.000Z&updatedBefore=2025-01-02T00%3A00%3A00Z\
             &organisasjonsnummer=212345679,312345676&includeChanges=true&sort=id,DESC&x=y",
        )
        .expect("a good question");
        assert_eq!(asked.first_id, Some(7));
        assert_eq!(asked.from_ms, Some(1_735_689_600_000));
        assert_eq!(asked.before_ms, Some(1_735_776_000_000));
        assert_eq!(asked.numbers.map(|numbers| numbers.len()), Some(2));
        assert!(asked.include_changes && asked.newest_first);
        assert_eq!((asked.page, asked.size), (0, 20));
    }

    #[test]
    fn bad_parameters_are_refused() {
        for bad in [
            "oppdateringsid=0",
            "oppdateringsid=-1",
            "oppdateringsid=x",
            "dato=2025",
            "page=-1",
            "updatedBefore=",
            "organisasjonsnummer=12",
            "includeChanges=ja",
            "sort=navn,ASC",
            "sort=id,UP",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn next_is_linked_while_there_are_pages() {
        let asked = parse("page=1&size=2").expect("a good question");
        let shown = links("http://x/f", "page=1&size=2", &asked, 5);
        assert_eq!(shown["next"]["href"], "http://x/f?size=2&page=2");
        let shown = links("http://x/f", "page=1&size=2", &asked, 4);
        assert!(shown.get("next").is_none());
    }
}
