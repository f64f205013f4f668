//! The name service of networks: containers find each other by name, and names by address.

use std::net::IpAddr;
use std::path::Path;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::lease::{self, Lease};

/// Seconds an answer may be kept: containers come and go.
const TTL: u32 = 0;

/// Whom a container may ask for: all who are on one of its networks. Those of `known` networks are
/// given; those of the others are read from beside them.
pub(crate) fn neighbours(networks: &Path, container: &str, known: &[&str]) -> Vec<Lease> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(networks).into_iter().flatten().flatten() {
        if known.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        let leases = lease::read(&entry.path());
        if leases.iter().any(|lease| lease.container == container) {
            all.extend(leases);
        }
    }
    all
}

/// Answers a question about one of these containers; `None` where the answer is not ours. With
/// `last`, no other server is asked: a name that we do not know does not exist.
pub(crate) fn answer(
    question: &[u8],
    last: bool,
    neighbours: impl FnOnce() -> Vec<Lease>,
) -> Option<Vec<u8>> {
    let question = Message::from_vec(question).ok()?;
    let [query] = &question.queries[..] else { return None };
    let asked = question.metadata.message_type == MessageType::Query
        && question.metadata.op_code == OpCode::Query;
    if !asked {
        return None;
    }
    let found = find(query, &neighbours());
    let code = match &found {
        None if !last => return None,
        None => ResponseCode::NXDomain,
        Some(_) => ResponseCode::NoError,
    };
    let mut answer = Message::response(question.metadata.id, OpCode::Query);
    answer.metadata.recursion_desired = question.metadata.recursion_desired;
    answer.metadata.recursion_available = true;
    answer.metadata.authoritative = true;
    answer.metadata.response_code = code;
    answer.add_query(query.clone());
    let records = found.unwrap_or_default().into_iter();
    answer.add_answers(records.map(|data| Record::from_rdata(query.name().clone(), TTL, data)));
    answer.to_vec().ok()
}

/// The records of a name; `None` if no container has it.
fn find(query: &Query, neighbours: &[Lease]) -> Option<Vec<RData>> {
    if query.query_type() == RecordType::PTR {
        let address = query
            .name()
            .parse_arpa_name()
            .ok()
            .filter(|net| net.prefix_len() == net.max_prefix_len());
        let address = address?.addr();
        let of = |lease: &&Lease| lease.addresses().iter().any(|(own, _)| *own == address);
        let lease = neighbours.iter().find(of)?;
        let name = Name::from_ascii(format!("{}.{}.", lease.name, lease.network)).ok()?;
        return Some(vec![RData::PTR(PTR(name))]);
    }
    let name = query.name().to_ascii();
    let name = name.trim_end_matches('.');
    let mut called = neighbours.iter().filter(|lease| lease.is_called(name)).peekable();
    called.peek()?;
    let addresses = called.flat_map(Lease::addresses);
    let mut data: Vec<RData> = Vec::new();
    for (address, _) in addresses {
        match (address, query.query_type()) {
            (IpAddr::V4(address), RecordType::A) => data.push(RData::A(A(address))),
            (IpAddr::V6(address), RecordType::AAAA) => data.push(RData::AAAA(AAAA(address))),
            _ => {}
        }
    }
    Some(data)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lease(name: &str, last: u8) -> Lease {
        Lease {
            network: "web".to_owned(),
            container: "c".repeat(64),
            name: name.to_owned(),
            aliases: vec!["all".to_owned()],
            ip: ([10, 9, 0, last].into(), 24),
            ip6: None,
            gateways: Vec::new(),
            names: None,
            servers: None,
            mac: [2; 6],
            shares_mac: false,
            mtu: 1500,
            internal: false,
            bridge: None,
            published: Vec::new(),
        }
    }

    fn ask(name: &str, kind: RecordType, last: bool) -> Option<(ResponseCode, Vec<String>)> {
        let mut question = Message::new(7, MessageType::Query, OpCode::Query);
        question.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        let bytes = question.to_vec().unwrap();
        let bytes = answer(&bytes, last, || vec![lease("db", 2), lease("box", 3)])?;
        let answer = Message::from_vec(&bytes).unwrap();
        assert_eq!(answer.metadata.id, 7);
        let data = answer.answers.iter().map(|record| record.data.to_string());
        Some((answer.metadata.response_code, data.collect()))
    }

    #[test]
    fn containers_are_found_by_name_and_by_address() {
        let found = |list: &[&str]| {
            Some((ResponseCode::NoError, list.iter().map(|text| (*text).to_owned()).collect()))
        };
        assert_eq!(ask("DB.", RecordType::A, false), found(&["10.9.0.2"]));
        assert_eq!(ask("db.web.", RecordType::A, false), found(&["10.9.0.2"]));
        assert_eq!(ask("all.", RecordType::A, false), found(&["10.9.0.2", "10.9.0.3"]));
        assert_eq!(ask("3.0.9.10.in-addr.arpa.", RecordType::PTR, false), found(&["box.web."]));
        // The name exists without such an address: no other server knows more.
        assert_eq!(ask("db.", RecordType::AAAA, false), found(&[]));
    }

    #[test]
    fn other_names_are_for_others_unless_there_are_none() {
        assert_eq!(ask("example.com.", RecordType::A, false), None);
        assert_eq!(ask("9.0.9.10.in-addr.arpa.", RecordType::PTR, false), None);
        let nothing = Some((ResponseCode::NXDomain, Vec::new()));
        assert_eq!(ask("example.com.", RecordType::A, true), nothing);
    }

    proptest! {
        #[test]
        fn no_question_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = answer(&bytes, true, || vec![lease("db", 2)]);
        }
    }
}
