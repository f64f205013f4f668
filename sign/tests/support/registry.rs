//! Debian's registry on a free port of the loopback interface, with one image in it.

#![allow(clippy::unwrap_used, reason = "this is only built for tests")]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use image::{Descriptor, Reference};
use registry_client::{Client, Options};
use sign::{
    Demand, Form, PrivateKey, SignOptions, SignedIdentity, Verified, sign_image, verify_image,
};
use task::Task;
use tempfile::TempDir;
use transport::at::Registry;
use transport::{Sink as _, Unverified};

/// A registry that runs until this is dropped, a directory for files beside it, and an image.
pub(crate) struct Scene {
    child: Child,
    client: Client,
    pub(crate) host: String,
    pub(crate) directory: TempDir,
    pub(crate) image: Descriptor,
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Scene {
    /// Whether Debian's registry is installed.
    pub(crate) fn possible() -> bool {
        requires::program("docker-registry").is_some()
    }

    /// Starts a registry and puts an image into it as `team/app:1`.
    pub(crate) async fn set() -> Scene {
        let directory = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let host = format!("127.0.0.1:{port}");
        let config = directory.path().join("registry.yml");
        let storage = directory.path().join("registry").display().to_string();
        let text = format!(
            "version: 0.1\nlog: {{level: info}}\nhttp: {{addr: \"{host}\"}}\n\
             storage: {{filesystem: {{rootdirectory: {storage}}}}}\n"
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&config).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let listening =
            log.by_ref().map_while(Result::ok).any(|line| line.contains("listening on"));
        assert!(listening, "the registry did not start");
        std::thread::spawn(move || log.map_while(Result::ok).for_each(drop));
        let options = Options::default();
        let client = Client::new(options).unwrap();
        let (manifest, _) = super::image("x");
        let image = manifest.descriptor().clone();
        let scene = Scene { child, client, host, directory, image };
        scene.push("team/app:1", "x").await;
        scene
    }

    /// Puts the image of this seed into the registry.
    pub(crate) async fn push(&self, name: &str, seed: &str) -> Descriptor {
        let (manifest, blobs) = super::image(seed);
        let place = self.place(name);
        for (descriptor, bytes) in blobs {
            place.put(&descriptor, Unverified::whole(bytes).verify(&descriptor)).await.unwrap();
        }
        place
            .publish(manifest.descriptor(), manifest.bytes().clone(), &Task::silent())
            .await
            .unwrap();
        manifest.descriptor().clone()
    }

    pub(crate) fn name(&self, name: &str) -> Reference {
        format!("{}/{name}", self.host).parse().unwrap()
    }

    pub(crate) fn place(&self, name: &str) -> Registry {
        Registry::new(&self.client, &self.name(name))
    }

    /// The tag under which signatures of the older form lie.
    pub(crate) fn tag(&self) -> String {
        sign::simple_signing::tag(&self.image.digest).unwrap().to_string()
    }

    pub(crate) fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Signs the image under a name.
    pub(crate) async fn sign(&self, name: &str, key: &PrivateKey, form: Form) -> Descriptor {
        let place = self.place(name);
        let options = SignOptions {
            form,
            name: Some(self.name(name)),
            annotations: BTreeMap::from([("stage".to_owned(), "release".to_owned())]),
            created: None,
        };
        sign_image(&self.image, key, &place, &place, &options, &Task::silent()).await.unwrap()
    }

    /// Verifies the image under whatever name.
    pub(crate) async fn verify_any_name(
        &self,
        name: &str,
        key: &PrivateKey,
    ) -> Result<Vec<Verified>, sign::Error> {
        let demand =
            Demand { signers: sign::Signers::keys(vec![key.public()]), ..Demand::default() };
        verify_image(&self.image, &demand, &self.place(name), &Task::silent()).await
    }

    /// Verifies the image under exactly its name; how many good signatures there are.
    pub(crate) async fn verify(&self, name: &str, key: &PrivateKey) -> Result<usize, sign::Error> {
        let demand = Demand {
            signers: sign::Signers::keys(vec![key.public()]),
            identity: SignedIdentity::Exact,
            asked: Some(self.name(name)),
            ..Demand::default()
        };
        let place = self.place(name);
        Ok(verify_image(&self.image, &demand, &place, &Task::silent()).await?.len())
    }
}

/// Runs a command; its messages if it fails.
pub(crate) fn run(command: &mut Command) -> Result<Output, String> {
    let output = command.output().unwrap();
    match output.status.success() {
        true => Ok(output),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

pub(crate) fn keys() -> (PrivateKey, PrivateKey) {
    (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap())
}
