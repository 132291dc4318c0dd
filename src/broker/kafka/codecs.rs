//! Compression codecs of Kafka that this build can read.

use rdkafka::config::ClientConfig;

/// Every codec that a topic's `compression.type` may name.
const CODECS: [&str; 4] = ["gzip", "snappy", "lz4", "zstd"];

/// The codecs that librdkafka was built with.
pub(super) fn built_in() -> Vec<&'static str> {
    let features = ClientConfig::new().create_native_config().and_then(|config| config.get("builtin.features"));
    among(&features.unwrap_or_default())
}

fn among(features: &str) -> Vec<&'static str> {
    let has = |codec: &str| features.split(',').any(|feature| feature.trim() == codec);
    CODECS.into_iter().filter(|codec| has(codec)).collect()
}

/// True if a topic with this `compression.type` may hold batches that a build with these codecs cannot read. `producer`
/// and `uncompressed` are always readable.
pub(super) fn is_missing(compression: &str, built_in: &[&str]) -> bool {
    CODECS.contains(&compression) && !built_in.contains(&compression)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_build_has_every_codec() {
        assert_eq!(built_in(), CODECS);
    }

    #[test]
    fn a_codec_that_was_left_out_is_missing() {
        let few = among("gzip,snappy,sasl,regex,lz4");
        assert_eq!(few, ["gzip", "snappy", "lz4"]);
        assert!(is_missing("zstd", &few) && !is_missing("lz4", &few));
        assert!(!is_missing("producer", &few) && !is_missing("uncompressed", &few));
    }
}
