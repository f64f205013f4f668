//! CycloneDX 1.6, as JSON.

use serde_json::{Value, json};

use crate::license::expression;
use crate::{Ecosystem, Inventory, LocatedPackage, Subject};

/// The inventory as a CycloneDX 1.6 document. The same inventory gives the same bytes.
pub fn cyclonedx(inventory: &Inventory, subject: &Subject<'_>) -> Value {
    let mut components: Vec<Value> =
        inventory.packages.iter().map(|located| component(inventory, subject, located)).collect();
    if !inventory.release.id.is_empty() {
        components.insert(
            0,
            json!({
                "bom-ref": "operating-system",
                "type": "operating-system",
                "name": inventory.release.id,
                "version": inventory.release.version,
                "description": inventory.release.name,
            }),
        );
    }
    json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": format!("urn:uuid:{}", uuid(&subject.digest.hex())),
        "version": 1,
        "metadata": {
            "timestamp": subject.created,
            "tools": { "components": [
                { "type": "application", "name": "rbuild", "version": subject.version },
            ] },
            "component": {
                "bom-ref": "image",
                "type": "container",
                "name": subject.name,
                "version": subject.digest.to_string(),
            },
        },
        "components": components,
    })
}

fn component(inventory: &Inventory, subject: &Subject<'_>, located: &LocatedPackage) -> Value {
    let package = &located.package;
    let purl = package.purl(&inventory.release);
    let mut properties = vec![json!({ "name": "rbuild:path", "value": located.path })];
    if let Some(diff_id) = subject.diff_ids.get(located.layer) {
        properties.push(json!({ "name": "rbuild:layer:diffID", "value": diff_id.to_string() }));
    }
    let mut value = json!({
        // One package may be installed twice.
        "bom-ref": format!("{purl}#{}", located.path),
        "type": "library",
        "name": package.name,
        "version": package.version,
        "purl": purl,
        "properties": properties,
    });
    let group = match package.ecosystem {
        Ecosystem::Npm | Ecosystem::Composer => package.name.split_once('/'),
        Ecosystem::Maven => package.name.split_once(':'),
        _ => None,
    };
    if let Some((group, name)) = group {
        value["group"] = group.into();
        value["name"] = name.into();
    }
    if let Some(license) = &package.license {
        value["licenses"] = match expression(license) {
            Some(expression) => json!([{ "expression": expression }]),
            None => json!([{ "license": { "name": license } }]),
        };
    }
    if let Some(supplier) = &package.supplier {
        value["supplier"] = json!({ "name": supplier });
    }
    value
}

/// A UUID (version 8: made from a digest) that names the document.
fn uuid(hex: &str) -> String {
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or("0000");
    format!("{}-{}-8{}-a{}-{}", part(0, 8), part(8, 12), part(13, 16), part(17, 20), part(20, 32))
}
