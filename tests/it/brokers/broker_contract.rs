//! The contract of [`skylark::broker`], tested on every engine with its real server.
//!
//! An engine joins with an implementation of [`Bus`] and a line below.

mod faults;
mod one;
mod rosters;
mod several;
mod stores;

use crate::support::brokers::bus::{Bus, MemoryBus, SharedKafka};
use crate::support::brokers::kafka::KafkaCluster;
use crate::support::brokers::redis::Redis;

/// Generates the same cases for each engine.
macro_rules! contract {
    ($($engine:ident: $bus:ty = [$($part:ident :: $case:ident),+ $(,)?];)+) => {
        $(mod $engine {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$part::$case::<$bus>().await;
            })+
        })+
    };
}

/// Cases for every engine.
macro_rules! every_engine {
    ($($engine:ident: $bus:ty),+ $(,)?) => {
        contract! {
            $($engine: $bus = [
                one::each_stream_keeps_its_order,
                one::words_and_messages_keep_their_order,
                one::unknown_nodes_are_reported_in_the_outcome,
                one::publish_after_close_is_unavailable,
                one::a_slow_receiver_loses_nothing,
                rosters::numbers_grow,
                rosters::a_member_is_listed_until_it_leaves,
            ];)+
        }
    };
}

every_engine!(memory: MemoryBus, redis: Redis, kafka: SharedKafka);

/// Cases for engines that several nodes share.
macro_rules! shared_engines {
    ($($engine:ident: $bus:ty),+ $(,)?) => {
        $(const _: () = assert!(<$bus as Bus>::IS_SHARED);)+
        contract! {
            $($engine: $bus = [
                several::every_target_reaches_the_nodes_it_is_for,
                several::many_users_are_reached_wherever_they_are,
                several::released_user_is_unsubscribed,
                several::nodes_narrow_an_envelope,
                several::receipts_add_up,
                several::an_oversized_envelope_is_refused_with_its_size,
                several::an_identity_arrives_once,
                several::unreadable_record_is_a_gap_and_later_records_arrive,
                faults::a_node_starts_before_its_engine,
                faults::a_killed_engine_is_unavailable_and_comes_back_with_a_gap,
                faults::a_stopped_engine_answers_in_time_and_loses_nothing_accepted,
                faults::unavailable_message_arrives_once_or_never,
                faults::publish_to_full_queue_is_unavailable_without_silent_drop,
                rosters::a_name_or_number_belongs_to_one,
                rosters::presence_counts_over_all_members,
                rosters::a_fallen_members_users_go_to_one_survivor,
                rosters::engine_after_data_loss_gets_members_and_users_again,
            ];)+
        }
    };
}

/// Cases for engines that store the plugins' keys for all nodes.
macro_rules! storing_engines {
    ($($engine:ident: $bus:ty),+ $(,)?) => {
        contract! {
            $($engine: $bus = [
                stores::a_commit_on_a_changed_read_is_a_conflict_and_changes_nothing,
                stores::an_entry_ends_with_its_time_and_makes_room,
                stores::a_share_is_bounded,
                stores::many_nodes_count_without_losing_one,
            ];)+
        }
    };
}

mod stored {
    use super::*;

    storing_engines!(redis: Redis);
}

mod shared {
    use super::*;

    shared_engines!(redis: Redis);

    // Kafka keeps accepted records, so it returns without a gap and with its roster: the cases for a Redis that forgets
    // do not apply. Cases that break the server get their own one.
    contract! {
        kafka: SharedKafka = [
            several::every_target_reaches_the_nodes_it_is_for,
            several::many_users_are_reached_wherever_they_are,
            several::released_user_is_unsubscribed,
            several::nodes_narrow_an_envelope,
            several::receipts_add_up,
            several::an_oversized_envelope_is_refused_with_its_size,
            several::an_identity_arrives_once,
            several::unreadable_record_is_a_gap_and_later_records_arrive,
            rosters::a_name_or_number_belongs_to_one,
            rosters::presence_counts_over_all_members,
            rosters::a_fallen_members_users_go_to_one_survivor,
        ];
        hurt_kafka: KafkaCluster = [
            faults::a_node_starts_before_its_engine,
            faults::a_stopped_engine_answers_in_time_and_loses_nothing_accepted,
            faults::unavailable_message_arrives_once_or_never,
            faults::publish_to_full_queue_is_unavailable_without_silent_drop,
        ];
    }
}
