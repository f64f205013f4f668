//! Signing with keys in key services, against stand-ins on loopback.
#![allow(clippy::unwrap_used, reason = "test support fails loudly")]

use e2e::watch::guarded;
use e2e::{Bench, Ran};
use registry_server::{Options, Registry};
use standins::{StandinServer, World, serve};

struct Scene {
    bench: Bench,
    served: StandinServer,
}

impl Scene {
    fn ours(&self, program: &str, arguments: &[&str]) -> Ran {
        self.with(program, arguments, &[])
    }

    /// With the variables of every key service, and others in their place.
    fn with(&self, program: &str, arguments: &[&str], more: &[(&str, &str)]) -> Ran {
        let url = self.served.url.as_str();
        let mut command = self.bench.command(program);
        command.current_dir(self.bench.path()).args(arguments);
        command.envs([("VAULT_ADDR", url), ("VAULT_TOKEN", "vault-token")]);
        command.envs([("AWS_ACCESS_KEY_ID", "AKIDTEST"), ("AWS_SECRET_ACCESS_KEY", "secret")]);
        command.envs([("AWS_REGION", "eu-central-1"), ("AWS_ENDPOINT_URL_KMS", url)]);
        command.env("GOOGLE_OAUTH_ACCESS_TOKEN", "google-token");
        command.env("CLOUDSDK_API_ENDPOINT_OVERRIDES_CLOUDKMS", url);
        command.envs([("AZURE_TENANT_ID", "tenant"), ("AZURE_CLIENT_ID", "client")]);
        command.envs([("AZURE_CLIENT_SECRET", "azure-secret"), ("AZURE_AUTHORITY_HOST", url)]);
        command.envs(more.iter().copied());
        guarded(&mut command)
    }
}

#[test]
fn keys_in_key_services_sign_and_are_verified_by_their_public_half() {
    let scene = Scene { bench: Bench::new(), served: serve(World::default()) };
    let registry = Registry::start(Options::default()).unwrap();
    let layer = e2e::image::Layer::new().file("f", 0o644, b"content").finish();
    e2e::image::layout(&scene.bench.path().join("image"), "app", &[layer], |_| {});
    scene.bench.write("predicate.json", "{}");
    let vault = format!("azurekms://{}/signer", scene.served.url.trim_start_matches("http://"));
    let google = "gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/signer/versions/1";
    let keys = ["hashivault://signer", "awskms:///alias/signer", google, &vault];
    for (index, key) in keys.into_iter().enumerate() {
        let place = format!("docker://{}/team/app{index}:1", registry.address());
        scene.ours("rcopy", &["copy", "oci:image:app", &place]).ok();
        let public = scene.ours("rbuild", &["public-key", "--key", key]).ok();
        scene.bench.write("key.pub", &public.stdout);
        for form in ["--form=bundle", "--form=tag"] {
            scene.ours("rbuild", &["sign", "--key", key, form, &place]).ok();
            // Again: nothing is added.
            scene.ours("rbuild", &["sign", "--key", key, form, &place]).ok();
        }
        let verified = scene.ours("rbuild", &["verify", "--key=key.pub", &place]).ok();
        assert_eq!(verified.stdout.matches("signed as").count(), 2, "{}", verified.told());
        scene.ours("rbuild", &["verify", "--key", key, &place]).ok();
        let about = ["--type=custom", "--predicate=predicate.json", "--key", key, &place];
        scene.ours("rbuild", &[&["attest"][..], &about].concat()).ok();
        scene.ours("rbuild", &[&["attest"][..], &about].concat()).ok();
        let said = scene.ours("rbuild", &["verify-attestation", "--key=key.pub", &place]).ok();
        assert!(said.stderr.contains("verified"), "{}", said.told());
        let blob = ["sign-blob", "--bundle=b.json", "predicate.json", "--key", key];
        scene.ours("rbuild", &blob).ok();
        scene
            .ours("rbuild", &["verify-blob", "--bundle=b.json", "--key=key.pub", "predicate.json"])
            .ok();
        let wrong = [
            ("VAULT_TOKEN", "x"),
            ("AWS_ACCESS_KEY_ID", "x"),
            ("GOOGLE_OAUTH_ACCESS_TOKEN", "x"),
            ("AZURE_CLIENT_SECRET", "x"),
        ];
        let denied = scene.with("rbuild", &["sign", "--key", key, &place], &wrong);
        denied.fails(&["the key service", "403", "permission denied"]);
        let missing = scene.with("rbuild", &["sign", "--key", &format!("{key}x"), &place], &[]);
        missing.fails(&["the key service"]);
    }
    let unset = [("VAULT_TOKEN", "")];
    let unset = scene.with("rbuild", &["public-key", "--key", keys[0]], &unset);
    unset.fails(&["VAULT_TOKEN"]);
}

/// A software token with two keys, or `None` where its programs are not installed.
fn token(bench: &Bench) -> Option<(String, String)> {
    for program in ["softhsm2-util", "pkcs11-tool"] {
        requires::program(program)?;
    }
    let module = "/usr/lib/softhsm/libsofthsm2.so";
    let tokens = bench.path().join("tokens");
    std::fs::create_dir(&tokens).unwrap();
    let config =
        format!("directories.tokendir = {}\nobjectstore.backend = file\n", tokens.display());
    let config = bench.write("softhsm2.conf", config).display().to_string();
    let run = |line: &[&str]| {
        let mut command = std::process::Command::new(line[0]);
        guarded(command.args(&line[1..]).env("SOFTHSM2_CONF", &config)).ok();
    };
    let init = ["--init-token", "--free", "--label", "team", "--pin", "1234", "--so-pin", "5678"];
    run(&[&["softhsm2-util"][..], &init].concat());
    for (kind, label, id) in [("EC:prime256v1", "ec", "01"), ("rsa:2048", "rsa", "02")] {
        let login = ["--module", module, "--token-label", "team", "--login", "--pin", "1234"];
        let make = ["--keypairgen", "--key-type", kind, "--label", label, "--id", id];
        run(&[&["pkcs11-tool"][..], &login, &make].concat());
    }
    Some((config, module.to_owned()))
}

#[test]
fn keys_in_hardware_sign() {
    let bench = Bench::new();
    let Some((config, module)) = token(&bench) else { return };
    let scene = Scene { bench, served: serve(World::default()) };
    let layer = e2e::image::Layer::new().file("f", 0o644, b"content").finish();
    e2e::image::layout(&scene.bench.path().join("image"), "app", &[layer], |_| {});
    let run = |pin: &str, line: &[&str]| {
        let variables = [("SOFTHSM2_CONF", &*config), ("COSIGN_PKCS11_PIN", pin)];
        scene.with("rbuild", line, &variables)
    };
    for (label, id) in [("ec", "%01"), ("rsa", "%02")] {
        let key = format!("pkcs11:token=team;object={label};id={id}?module-path={module}");
        let public = run("1234", &["public-key", "--key", &key]).ok();
        scene.bench.write("key.pub", &public.stdout);
        run("1234", &["sign", "--key", &key, "oci:image:app"]).ok();
        run("", &["verify", "--key=key.pub", "oci:image:app"]).ok();
        run("4321", &["sign-blob", "--bundle=b", "--key", &key, "key.pub"]).fails(&["pkcs11-tool"]);
        run("1234", &["sign-blob", "--bundle=b", "--key", &key, "key.pub"]).ok();
        run("", &["verify-blob", "--bundle=b", "--key=key.pub", "key.pub"]).ok();
    }
    let missing = format!("pkcs11:token=team;object=none?module-path={module}");
    run("1234", &["public-key", "--key", &missing]).fails(&["the key service", "pkcs11-tool"]);
}
