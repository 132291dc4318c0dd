//! The generated types of `proto/skylark/v1`. Nothing here is written by hand; the test below generates the files.
//!
//! They decode input. In tests they also verify the output of `protobuf`.

#![allow(missing_docs, unreachable_pub, dead_code, clippy::all, reason = "generated")]

include!("gen/skylark.v1.rs");

/// Cluster messages.
pub mod cluster {
    include!("gen/skylark.v1.cluster.rs");
}

/// CIM's layout.
#[cfg(test)]
pub mod cim {
    include!("gen/skylark.v1.cim.rs");
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// `SKYLARK_REGENERATE=1 cargo test protocol::proto` writes the files; without the variable they are compared.
    #[test]
    fn committed_code_matches_the_proto_files() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let files = ["client", "cim", "bus", "cluster"].map(|name| format!("skylark/v1/{name}.proto"));
        let descriptors = protox::compile(files, [root.join("proto")]).unwrap();
        let out = tempfile::tempdir().unwrap();
        prost_build::Config::new().btree_map(["."]).out_dir(out.path()).compile_fds(descriptors).unwrap();

        let committed = root.join("src/protocol/gen");
        let mut made = 0;
        for file in std::fs::read_dir(out.path()).unwrap() {
            let file = file.unwrap();
            let fresh = std::fs::read_to_string(file.path()).unwrap();
            let kept = committed.join(file.file_name());
            if std::env::var_os("SKYLARK_REGENERATE").is_some() {
                std::fs::write(&kept, &fresh).unwrap();
            }
            assert!(
                fresh == std::fs::read_to_string(&kept).unwrap_or_default(),
                "{} differs from what the proto files give",
                kept.display()
            );
            made += 1;
        }
        assert_eq!(made, std::fs::read_dir(&committed).unwrap().count());
    }
}
