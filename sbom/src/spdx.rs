//! SPDX 2.3, as JSON.

use serde_json::{Value, json};

use crate::license::expression;
use crate::purl::encode;
use crate::{Inventory, LocatedPackage, Subject};

const NONE: &str = "NOASSERTION";

/// The inventory as an SPDX 2.3 document. The same inventory gives the same bytes.
pub fn spdx(inventory: &Inventory, subject: &Subject<'_>) -> Value {
    let digest = subject.digest.to_string();
    let mut packages = vec![root(inventory, subject)];
    let mut relationships = vec![json!({
        "spdxElementId": "SPDXRef-DOCUMENT",
        "relationshipType": "DESCRIBES",
        "relatedSpdxElement": "SPDXRef-image",
    })];
    for (index, located) in inventory.packages.iter().enumerate() {
        let id = format!("SPDXRef-package-{index}");
        packages.push(package(inventory, subject, located, &id));
        relationships.push(json!({
            "spdxElementId": "SPDXRef-image",
            "relationshipType": "CONTAINS",
            "relatedSpdxElement": id,
        }));
    }
    let mut document = json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": subject.name,
        "documentNamespace":
            format!("https://spdx.org/spdxdocs/rbuild-{}-{}", subject.digest.hex(), subject.version),
        "creationInfo": {
            "created": subject.created,
            "creators": [format!("Tool: rbuild-{}", subject.version)],
        },
        "packages": packages,
        "relationships": relationships,
    });
    if !inventory.notes.is_empty() {
        let notes = inventory.notes.iter().map(|note| {
            json!({
                "annotationDate": subject.created,
                "annotationType": "OTHER",
                "annotator": format!("Tool: rbuild-{}", subject.version),
                "comment": format!("not read in {digest}: {note}"),
            })
        });
        document["annotations"] = notes.collect();
    }
    document
}

/// The image itself.
fn root(inventory: &Inventory, subject: &Subject<'_>) -> Value {
    let name = subject.name.split('@').next().unwrap_or(subject.name);
    let short = name.rsplit('/').next().and_then(|name| name.split(':').next()).unwrap_or(name);
    let purl = format!(
        "pkg:oci/{}@{}?arch={}",
        encode(&short.to_lowercase()),
        encode(&subject.digest.to_string()),
        encode(subject.platform.split('/').nth(1).unwrap_or(subject.platform)),
    );
    let mut root = json!({
        "SPDXID": "SPDXRef-image",
        "name": subject.name,
        "versionInfo": subject.digest.to_string(),
        "primaryPackagePurpose": "CONTAINER",
        "downloadLocation": NONE,
        "filesAnalyzed": false,
        "licenseConcluded": NONE,
        "licenseDeclared": NONE,
        "copyrightText": NONE,
        "checksums": [{
            "algorithm": subject.digest.algorithm().as_str().to_uppercase(),
            "checksumValue": subject.digest.hex(),
        }],
        "externalRefs": [{
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator": purl,
        }],
    });
    if !inventory.release.name.is_empty() {
        root["comment"] = format!("distribution: {}", inventory.release.name).into();
    }
    root
}

fn package(
    inventory: &Inventory,
    subject: &Subject<'_>,
    located: &LocatedPackage,
    id: &str,
) -> Value {
    let package = &located.package;
    let layer = match subject.diff_ids.get(located.layer) {
        Some(diff_id) => format!("layer {} ({diff_id})", located.layer),
        None => format!("layer {}", located.layer),
    };
    let license = package.license.as_deref();
    let mut value = json!({
        "SPDXID": id,
        "name": package.name,
        "downloadLocation": NONE,
        "filesAnalyzed": false,
        "licenseConcluded": NONE,
        "licenseDeclared": license.and_then(expression).unwrap_or(NONE),
        "copyrightText": NONE,
        "sourceInfo": format!("found in {} of {layer}", located.path),
        "externalRefs": [{
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator": package.purl(&inventory.release),
        }],
    });
    if !package.version.is_empty() {
        let epoch = package.epoch.map(|epoch| format!("{epoch}:")).unwrap_or_default();
        value["versionInfo"] = format!("{epoch}{}", package.version).into();
    }
    if let Some(supplier) = &package.supplier {
        // "Name <address>" is written "Name (address)".
        let supplier = supplier.replace(" <", " (").replace('>', ")");
        value["supplier"] = format!("Organization: {supplier}").into();
    }
    if let Some(license) = license.filter(|text| expression(text).is_none()) {
        value["licenseComments"] = format!("declared as: {license}").into();
    }
    let is_url = |url: &&String| url.starts_with("https://") || url.starts_with("http://");
    if let Some(homepage) = package.homepage.as_ref().filter(is_url) {
        value["homepage"] = homepage.as_str().into();
    }
    value
}
