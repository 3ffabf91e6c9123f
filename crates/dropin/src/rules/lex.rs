//! Cuts a rule file into rules and a rule into its header and options.

use super::Problem;

/// The lines that hold rules: comments and empty lines left out, continued lines joined; each with
/// the number of its first line, from 1.
pub(super) fn rules(text: &str) -> Vec<(usize, String)> {
    let mut rules = Vec::new();
    let mut pending: Option<(usize, String)> = None;
    for (number, line) in (1..).zip(text.lines()) {
        let (first, mut joined) = pending.take().unwrap_or((number, String::new()));
        let line = line.trim();
        if joined.is_empty() && line.starts_with('#') {
            continue;
        }
        match line.strip_suffix('\\') {
            Some(part) => {
                joined.push_str(part);
                pending = Some((first, joined));
            }
            None => {
                joined.push_str(line);
                rules.push((first, joined));
            }
        }
    }
    rules.extend(pending);
    rules.retain(|(_, rule)| !rule.is_empty());
    rules
}

/// A rule's header, and what stands between its parentheses.
pub(super) fn split(rule: &str) -> Result<(&str, &str), Problem> {
    let (header, rest) = rule
        .split_once('(')
        .ok_or(Problem::Unclosed("there is no `(`"))?;
    let options = rest
        .trim_end()
        .strip_suffix(')')
        .ok_or(Problem::Unclosed("there is no `)` at the end"))?;
    Ok((header.trim(), options))
}

/// One option: `keyword;` or `keyword:value;`.
pub(super) struct Keyword<'a> {
    pub name: &'a str,
    /// As written, without blanks around it.
    pub value: Option<&'a str>,
}

/// The options, in their order. A `;` ends one unless it is escaped or in quotes.
pub(super) fn options(text: &str) -> Result<Vec<Keyword<'_>>, Problem> {
    let mut options = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let end = end_of_option(rest)?;
        let (option, after) = rest.split_at(end);
        let (keyword, value) = match option.split_once(':') {
            Some((keyword, value)) => (keyword, Some(value.trim())),
            None => (option, None),
        };
        options.push(Keyword {
            name: keyword.trim(),
            value,
        });
        rest = after.strip_prefix(';').unwrap_or(after).trim_start();
    }
    Ok(options)
}

/// Where the first option's `;` is.
fn end_of_option(text: &str) -> Result<usize, Problem> {
    let mut quoted = false;
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => quoted = !quoted,
            b';' if !quoted => return Ok(at),
            _ => {}
        }
    }
    Err(Problem::Unclosed("an option has no `;`"))
}

/// What stands between quotes; what follows the closing one is an error.
pub(super) fn unquote<'a>(option: &'static str, value: &'a str) -> Result<&'a str, Problem> {
    let inner = value
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    inner.ok_or_else(|| Problem::Value {
        option,
        value: value.to_owned(),
        what: "must be in quotes",
    })
}

/// Undoes the escapes of a content: `\"`, `\;`, `\\`, `\:` and bytes in hexadecimal between bars. A `;`
/// in quotes needs no escape here: whoever wrote the rule from a path that has one meant it.
pub(super) fn unescape(value: &str) -> Result<Vec<u8>, Problem> {
    let wrong = |what| Problem::Value {
        option: "content",
        value: value.to_owned(),
        what,
    };
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'\\' => {
                let (&escaped, after) = rest.split_first().ok_or(wrong("ends in a backslash"))?;
                if !matches!(escaped, b'"' | b';' | b'\\' | b':') {
                    return Err(wrong("escapes what needs no escape"));
                }
                bytes.push(escaped);
                rest = after;
            }
            b'|' => {
                let bar = rest.iter().position(|&byte| byte == b'|');
                let bar = bar.ok_or(wrong("has hexadecimal bytes without a closing bar"))?;
                let (digits, after) = rest.split_at(bar);
                hexadecimal(digits, &mut bytes).ok_or(wrong("has odd hexadecimal bytes"))?;
                rest = after.get(1..).unwrap_or_default();
            }
            b'"' => return Err(wrong("has a quote that is not escaped")),
            plain => bytes.push(plain),
        }
    }
    Ok(bytes)
}

fn hexadecimal(digits: &[u8], bytes: &mut Vec<u8>) -> Option<()> {
    let digits: Vec<u32> = digits
        .iter()
        .filter(|byte| !byte.is_ascii_whitespace())
        .map(|&byte| char::from(byte).to_digit(16))
        .collect::<Option<_>>()?;
    let pairs = digits.chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    for pair in pairs {
        let value = pair.iter().fold(0, |value, digit| value << 4 | digit);
        bytes.push(u8::try_from(value).ok()?);
    }
    Some(())
}
