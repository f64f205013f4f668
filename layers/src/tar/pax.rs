//! PAX records: `LENGTH KEY=VALUE\n`, where the length counts itself.

use super::number;

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PaxRecord<'a> {
    pub(super) key: &'a str,
    pub(super) value: &'a [u8],
}

/// Splits a PAX header into its records, by their lengths alone: values may hold any byte.
pub(super) fn records(mut bytes: &[u8]) -> Result<Vec<PaxRecord<'_>>, &'static str> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let digits = bytes.iter().take(21).position(|byte| *byte == b' ');
        let digits = digits.ok_or("a PAX record has no length")?;
        let length = number::decimal(&bytes[..digits]).ok_or("a PAX record has no length")?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if bytes[0] == b'0' || length <= digits + 1 || length > bytes.len() {
            return Err("a PAX record has a wrong length");
        }
        let (record, rest) = bytes.split_at(length);
        bytes = rest;
        let [body @ .., b'\n'] = &record[digits + 1..] else {
            return Err("a PAX record does not end in a newline");
        };
        let equals = body.iter().position(|byte| *byte == b'=');
        let equals = equals.ok_or("a PAX record has no equals sign")?;
        let key = std::str::from_utf8(&body[..equals]).map_err(|_| "a PAX key is not UTF-8")?;
        if key.is_empty() || key.contains('\0') {
            return Err("a PAX record has no key");
        }
        records.push(PaxRecord { key, value: &body[equals + 1..] });
    }
    Ok(records)
}

/// Appends one record.
pub(super) fn push(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    // Blank, equals sign, newline.
    let body = key.len() + value.len() + 3;
    let mut length = body + digits(body);
    if digits(length) > digits(body) {
        length += 1;
    }
    out.extend_from_slice(length.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

fn digits(number: usize) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pushed_is_read() {
        for length in (0..=1200).chain([9_990, 9_995, 99_990]) {
            let value = vec![b'\n'; length];
            let mut bytes = Vec::new();
            push(&mut bytes, b"key", &value);
            push(&mut bytes, b"b", b"= 3");
            let read = records(&bytes).unwrap();
            assert_eq!(read.len(), 2);
            assert_eq!((read[0].key, read[0].value), ("key", &value[..]));
            assert_eq!((read[1].key, read[1].value), ("b", &b"= 3"[..]));
        }
    }

    #[test]
    fn malformed_records_are_refused() {
        let cases: [&[u8]; 15] = [
            b"6 a=b",
            b"5 a=b\n",
            b"7 a=b\n",
            b"06 a=b\n",
            b"007 a=b\n",
            b" 7 a=b\n",
            b"+6 a=b\n",
            b"-6 a=b\n",
            b"99999999999999999999999 a=b\n",
            b"18446744073709551615 a=b\n",
            b"6 abb\n",
            b"5 =b\n",
            b"0 a=b\n",
            b"6 a=b\n\0\0\0",
            b"8 a\0b=c\n",
        ];
        for bytes in cases {
            assert!(records(bytes).is_err(), "{:?}", String::from_utf8_lossy(bytes));
        }
    }
}
