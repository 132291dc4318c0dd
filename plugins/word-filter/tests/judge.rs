//! Verdicts of the word filter. The built component must pass the same cases.

use proptest::prelude::*;
use skylark_plugin::{Filter, Message, Plugin, Publish, Verdict};
use word_filter::{Settings, Spare, WordFilter, Words};

fn plugin(settings: &str) -> WordFilter {
    let settings: Settings = toml::from_str(settings).expect("settings");
    WordFilter::start(settings).expect("a plugin")
}

fn words(words: &[&str]) -> Words {
    Words::new(&words.iter().map(|&w| w.to_owned()).collect::<Vec<_>>(), true).expect("a list")
}

#[track_caller]
fn masks(list: &[&str], text: &str, expected: &str) {
    let words = words(list);
    let masked = words.mask(text, '*', &Spare::default());
    assert_eq!(masked.as_deref().unwrap_or(text), expected);
    assert_eq!(words.hits(text, &Spare::default()), masked.is_some(), "{text}");
}

fn judge(plugin: &mut WordFilter, message: Message) -> Verdict {
    plugin.judge(&Publish::of(message))
}

#[test]
fn case_width_and_style_of_letters_do_not_matter() {
    masks(&["gossip"], "GOSSIP, Gossip and gossip", "******, ****** and ******");
    masks(&["gossip"], "ｇｏｓｓｉｐ ⓖⓞⓢⓢⓘⓟ 𝓰𝓸𝓼𝓼𝓲𝓹", "****** ****** ******");
    masks(&["ＧＯＳＳＩＰ"], "gossip", "******");
    masks(&["straße"], "STRASSE strasse Straße STRAẞE", "******* ******* ****** ******");
    masks(&["σοφός"], "ΣΟΦΌΣ", "*****");
    masks(&["Привет"], "ПРИВЕТ", "******");
}

#[test]
fn scripts_without_spaces_have_no_boundaries() {
    masks(&["笨蛋"], "你这个笨蛋啊", "你这个**啊");
    masks(&["ばか"], "おばかさん", "お**さん");
    masks(&["バカ"], "ﾊﾞｶです", "***です");
    masks(&["바보"], "이 바보야", "이 **야");
    masks(&["โง่"], "คนโง่มาก", "คน***มาก");
}

#[test]
fn word_next_to_other_letters_is_not_matched() {
    masks(&["ass"], "class assassin grass", "class assassin grass");
    masks(&["ass"], "an ass, ass! (ASS) ass你 _ass_", "an ***, ***! (***) ***你 _***_");
    masks(&["ass"], "ass1 1ass été-ass éass", "ass1 1ass été-*** éass");
    masks(&["bad word"], "a bad word is not a bad wordy", "a ******** is not a bad wordy");
    let anywhere = Words::new(&["ass".to_owned()], false).expect("a list");
    assert_eq!(anywhere.mask("class", '*', &Spare::default()).as_deref(), Some("cl***"));
}

#[test]
fn unmatched_word_does_not_hide_an_overlapping_match() {
    masks(&["foo bar", "bar"], "xfoo bar", "xfoo ***");
    masks(&["中国人民", "人民", "国人"], "中国人民大学", "****大学");
    masks(&["ab cd", "cd ef"], "ab cd ef", "********");
}

#[test]
fn letter_with_a_combining_mark_does_not_match_the_plain_letter() {
    masks(&["cafe"], "café cafe\u{301} cafe", "café cafe\u{301} ****");
    masks(&["café"], "CAFÉ cafe\u{301} cafe", "**** ***** cafe");
    masks(&["가"], "각 가", "각 *");
    masks(&["か"], "が か", "が *");
}

#[test]
fn invisible_characters_do_not_hide_a_word() {
    masks(&["gossip"], "gos\u{200B}sip g\u{AD}ossip go\u{335}ssip", "******* ******* *******");
    masks(&["笨蛋"], "笨\u{2060}蛋", "***");
}

#[test]
fn ligatures_are_read_as_their_letters_until_a_message_has_many() {
    // U+FDFA is a phrase of 18 letters and blanks. The list has the phrase, or one of its words.
    let message = |count: usize| Message::text("chat", "\u{FDFA} ".repeat(count));
    let mut phrase = plugin("words = [\"صلى الله عليه وسلم\"]");
    let Verdict::Replace(masked) = judge(&mut phrase, message(3)) else { panic!("not masked") };
    assert_eq!(masked.content[0].1, "* * * ");
    let plugin = || plugin("words = [\"الله\"]");
    assert_eq!(judge(&mut plugin(), message(3)), Verdict::Allow, "a part of a character is not covered");
    // A word next to the ligatures is found for any number of them.
    for count in [3, 20_000] {
        let message = Message::text("chat", format!("{} الله", "\u{FDFA} ".repeat(count)));
        let Verdict::Replace(masked) = judge(&mut plugin(), message) else { panic!("not masked") };
        assert!(masked.content[0].1.ends_with(" ****"), "{count}");
    }
}

#[test]
fn all_text_fields_are_checked_unless_settings_name_some() {
    let message = || {
        let message = Message::text("chat", "text x").with("caption", "x").with("url", "y").with_title("x!");
        message.with_extra("nickname", "mr x").with_extra("avatar", "z")
    };
    let mut all = plugin("words = [\"x\"]");
    let expected = Message::text("chat", "text *").with("caption", "*").with("url", "y").with_title("*!");
    let expected = expected.with_extra("nickname", "mr *").with_extra("avatar", "z");
    assert_eq!(judge(&mut all, message()), Verdict::Replace(expected));

    let mut some = plugin("words = [\"x\"]\nfields = [\"content.text\", \"extra.avatar\"]\nmask = \"█\"");
    let Verdict::Replace(masked) = judge(&mut some, message()) else { panic!("not masked") };
    assert_eq!(masked.content[0].1, "text █");
    assert_eq!((masked.content[1].1.as_str(), masked.title.as_str(), masked.extra[0].1.as_str()), ("x", "x!", "mr x"));

    assert_eq!(judge(&mut plugin("words = [\"x\"]\nfields = [\"image\"]"), message()), Verdict::Allow);
}

#[test]
fn a_message_without_a_word_is_allowed_as_it_is() {
    assert_eq!(judge(&mut plugin("words = [\"x\"]"), Message::text("chat", "好吗")), Verdict::Allow);
    assert_eq!(judge(&mut plugin(""), Message::text("chat", "x")), Verdict::Allow);
}

#[test]
fn reject_and_drop_end_the_message() {
    let message = || Message::text("chat", "a gossip");
    assert_eq!(
        judge(&mut plugin("words = [\"gossip\"]\nmode = \"reject\""), message()),
        Verdict::reject("403", "the message contains a forbidden word")
    );
    let mut own = plugin("words = [\"gossip\"]\nmode = \"reject\"\ncode = \"422\"\nreason = \"mind your words\"");
    assert_eq!(judge(&mut own, message()), Verdict::reject("422", "mind your words"));
    assert_eq!(judge(&mut plugin("words = [\"gossip\"]\nmode = \"drop\""), message()), Verdict::Drop);
}

#[test]
fn urls_are_not_checked_unless_settings_ask_for_it() {
    let message = |text: &str| Message::text("chat", text);
    let address = "https://example.com/gossip.jpg";
    assert_eq!(judge(&mut plugin("words = [\"gossip\"]"), message(address)), Verdict::Allow);
    for text in ["https://example.com/笨蛋", "https://example.com gossip", "see https://example.com/gossip"] {
        assert!(
            matches!(judge(&mut plugin("words = [\"gossip\", \"笨蛋\"]"), message(text)), Verdict::Replace(_)),
            "{text}"
        );
    }
    let mut all = plugin("words = [\"gossip\"]\naddresses = true");
    assert!(matches!(judge(&mut all, message(address)), Verdict::Replace(_)));
}

#[test]
fn settings_are_checked_when_it_starts() {
    let start = |text: &str| WordFilter::start(toml::from_str(text).unwrap()).map(|_| ()).unwrap_err();
    assert_eq!(start("words = [\"a\", \" \"]"), "settings.words[1]: expected a visible character, got \" \"");
    assert_eq!(start("code = \"no\""), "settings.code: expected three digits, got \"no\"");
    let parse = |text: &str| toml::from_str::<Settings>(text).unwrap_err().to_string();
    assert!(parse("mode = \"hide\"").contains("hide"));
    assert!(parse("fields = [\"sender\"]").contains("expected title, image, content"));
    assert!(parse("wrods = []").contains("wrods"));
}

#[test]
fn the_manifest_that_is_shipped_starts() {
    let manifest: toml::Table = toml::from_str(include_str!("../../dist/word-filter.toml")).unwrap();
    WordFilter::start(manifest["settings"].clone().try_into().unwrap()).unwrap();
}

proptest! {
    /// In any context, each character of a word is masked and no other character changes.
    #[test]
    fn a_mask_keeps_every_other_character(before in "\\PC{0,12}", after in "\\PC{0,12}") {
        let words = words(&["笨蛋", "gossip"]);
        let text = format!("{before} GoSSip 笨\u{200B}蛋 {after}");
        let masked = words.mask(&text, '*', &Spare::default()).expect("a word");
        prop_assert_eq!(masked.chars().count(), text.chars().count());
        prop_assert!(masked.contains(" ****** *** "), "{}", masked);
        prop_assert!(text.chars().zip(masked.chars()).all(|(t, m)| t == m || m == '*'));
        prop_assert!(!words.hits(&masked, &Spare::default()), "{}", masked);
    }

    /// No text causes a panic, and an empty list finds nothing.
    #[test]
    fn any_text_is_masked_without_a_panic(text in any::<String>()) {
        prop_assert!(!words(&[]).hits(&text, &Spare::default()));
        let found = words(&["a", "é", "가", "ß", "\u{301}x"]).mask(&text, '*', &Spare::default());
        prop_assert_eq!(found.unwrap_or_else(|| text.clone()).chars().count(), text.chars().count());
    }
}
