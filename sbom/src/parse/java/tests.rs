use std::io::Write;

use proptest::prelude::*;
use rawzip::ZipArchiveWriter;

use super::*;

/// A jar of files: compressed, or stored as archives in archives are.
fn jar(files: &[(&str, &[u8])], method: CompressionMethod) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut archive = ZipArchiveWriter::new(&mut bytes);
    for (name, content) in files {
        let (mut entry, config) =
            archive.new_file(name).compression_method(method).start().unwrap();
        let descriptor = if method == CompressionMethod::DEFLATE {
            let fast = flate2::Compression::fast();
            let mut writer = config.wrap(flate2::write::DeflateEncoder::new(&mut entry, fast));
            writer.write_all(content).unwrap();
            let (encoder, descriptor) = writer.finish().unwrap();
            encoder.finish().unwrap();
            descriptor
        } else {
            let mut writer = config.wrap(&mut entry);
            writer.write_all(content).unwrap();
            writer.finish().unwrap().1
        };
        entry.finish(descriptor).unwrap();
    }
    archive.finish().unwrap();
    bytes
}

const LOG4J: (&str, &[u8]) = (
    "META-INF/maven/org.apache.logging.log4j/log4j-core/pom.properties",
    b"#Created by Maven\r\nartifactId=log4j-core\r\ngroupId=org.apache.logging.log4j\r\nversion=2.14.1\r\n",
);

fn listed(archive: &JavaArchive) -> Vec<String> {
    archive.packages.iter().map(|found| format!("{}@{}", found.name, found.version)).collect()
}

fn of(path: &str, files: &[(&str, &[u8])]) -> Vec<String> {
    listed(&java_archive(path, &jar(files, CompressionMethod::DEFLATE)))
}

#[test]
fn maven_coordinates_come_before_the_manifest() {
    let manifest = b"Manifest-Version: 1.0\r\nImplementation-Title: Log4j\r\n\
        Implementation-Version: 2.14.1.redhat\r\n\r\n";
    let files = [("META-INF/MANIFEST.MF", &manifest[..]), LOG4J, ("a/B.class", b"\xca\xfe")];
    assert_eq!(of("app/log4j.jar", &files), ["org.apache.logging.log4j:log4j-core@2.14.1"]);
    assert_eq!(
        of("log4j-core-3.jar", &[LOG4J]).len(),
        1,
        "the name of the file is no second package"
    );
}

#[test]
fn what_was_copied_into_an_archive_is_listed_beside_it() {
    let copied =
        ("META-INF/maven/a/b/pom.properties", &b"version=1\ngroupId=a\nartifactId=b\n"[..]);
    assert_eq!(of("x.jar", &[LOG4J, copied]).len(), 2);
    let manifest = b"Bundle-SymbolicName: com.google.inject\nBundle-Version: 4.2.3\n";
    let files = [("META-INF/MANIFEST.MF", &manifest[..]), copied];
    assert_eq!(of("guice.jar", &files), ["a:b@1", "com.google:com.google.inject@4.2.3"]);
}

#[test]
fn a_manifest_names_what_maven_did_not_build() {
    let cases: [(&str, &str, &[&str]); 7] = [
        (
            "lib/ant.jar",
            "Implementation-Title: org.apache.tools.ant\nImplementation-Version: 1.10.13\n\
             Implementation-Vendor-Id: org.apache\n",
            &["org.apache:org.apache.tools.ant@1.10.13"],
        ),
        (
            "plugin.jar",
            "Bundle-SymbolicName: org.osgi.long.na\n me;singleton:=true\nBundle-Version: 3.1.0\n",
            &["org.osgi.long:org.osgi.long.name@3.1.0"],
        ),
        ("guava-31.1-jre.jar", "", &["guava@31.1-jre"]),
        ("commons-io-2.11.0.jar", "implementation-version: 2.11\n", &["commons-io@2.11"]),
        ("app.jar", "Main-Class: A\n\nName: x\nImplementation-Version: 1\n", &[]),
        ("app.jar", "Implementation-Version: ${version}\n", &[]),
        ("My App.jar", "Implementation-Title: My App\nImplementation-Version: 1\n", &["My App@1"]),
    ];
    for (path, manifest, expected) in cases {
        assert_eq!(of(path, &[("META-INF/MANIFEST.MF", manifest.as_bytes())]), expected, "{path}");
    }
    let text = b"Bundle-License: Apache-2.0;link=\"x\"\nBundle-Vendor: V\nBundle-Version: 1\n";
    let bytes = jar(&[("META-INF/MANIFEST.MF", text)], CompressionMethod::DEFLATE);
    let package = &java_archive("a.jar", &bytes).packages[0];
    assert_eq!(
        (package.license.as_deref(), package.supplier.as_deref()),
        (Some("Apache-2.0"), Some("V"))
    );
}

#[test]
fn archives_in_archives_are_read_to_a_depth() {
    let mut bytes = jar(&[LOG4J], CompressionMethod::DEFLATE);
    for depth in 1..=DEPTH + 1 {
        let method = [CompressionMethod::STORE, CompressionMethod::DEFLATE][depth % 2];
        bytes = jar(&[("WEB-INF/lib/inner.jar", &bytes)], method);
        let archive = java_archive("app.war", &bytes);
        assert_eq!(archive.whole, depth <= DEPTH, "depth {depth}");
        assert_eq!(archive.packages.len(), usize::from(depth <= DEPTH), "depth {depth}");
    }
}

#[test]
fn archives_that_start_with_a_script_are_read() {
    let script = b"#!/bin/sh\nexec java -jar \"$0\"\n".to_vec();
    let bytes = [script, jar(&[LOG4J], CompressionMethod::DEFLATE)].concat();
    assert_eq!(java_archive("app.jar", &bytes).packages.len(), 1);
}

#[test]
fn archives_that_unpack_to_too_much_are_read_in_part() {
    // Each layer of jars holds the one below many times.
    let zeros = vec![0; UNPACKED / 8 + 1];
    let one = jar(&[("zeros.jar", &zeros)], CompressionMethod::DEFLATE);
    let files: Vec<_> = (0..8).map(|_| ("one.jar", &one[..])).collect();
    let bytes = jar(&[&[LOG4J][..], &files, &[LOG4J]].concat(), CompressionMethod::DEFLATE);
    assert!(bytes.len() < 4 << 20, "{}", bytes.len());
    let archive = java_archive("bomb.jar", &bytes);
    assert!(!archive.whole);
    assert_eq!(archive.packages.len(), 1);

    let long = vec![b'#'; TEXT + 1];
    let long = jar(&[("META-INF/MANIFEST.MF", &long)], CompressionMethod::DEFLATE);
    assert_eq!(java_archive("a.jar", &long), JavaArchive::default());
}

#[test]
fn bytes_that_contradict_their_checksum_are_not_believed() {
    let mut bytes = jar(&[LOG4J], CompressionMethod::DEFLATE);
    let at = bytes.windows(4).position(|window| window == b"PK\x01\x02").unwrap();
    bytes[at + 16] ^= 1;
    assert_eq!(java_archive("a.jar", &bytes), JavaArchive::default());
}

#[test]
fn files_that_are_no_archives_are_reported() {
    for bytes in [&b""[..], b"PK\x03\x04", b"<html>"] {
        assert_eq!(java_archive("a.jar", bytes), JavaArchive::default());
    }
    assert!(java_archive("a.jar", &jar(&[], CompressionMethod::STORE)).whole);
}

proptest! {
    /// Sizes, offsets and counts of an archive may be anything.
    #[test]
    fn damaged_archives_are_survived(
        changes in prop::collection::vec((0usize..2000, any::<u8>()), 1..8), cut in 0usize..2000,
    ) {
        let inner = jar(&[LOG4J], CompressionMethod::DEFLATE);
        let files = [LOG4J, ("META-INF/MANIFEST.MF", &b"Bundle-Version: 1\n"[..]), ("a.jar", &inner)];
        let mut bytes = jar(&files, CompressionMethod::STORE);
        for (at, byte) in changes {
            let length = bytes.len();
            // Most of the structure is at the end.
            bytes[length - 1 - at % length] = byte;
        }
        java_archive("a.jar", &bytes);
        java_archive("a.jar", &bytes[cut % bytes.len()..]);
        bytes.truncate(cut % bytes.len());
        java_archive("a.jar", &bytes);
    }
}
