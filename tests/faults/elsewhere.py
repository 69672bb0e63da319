"""The rest of the catalogue: faults that are no row of `catalogue`, each with its outcome and the tests that inject it.

A test checks that each of the tests named here exists and is not skipped. What cannot happen here says why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["ELSEWHERE", "PROMISES", "Fault", "Promise"]


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        id: Id in the catalogue; empty where it has none.
        fault: What is injected.
        outcome: What comes of it.
        tests: ``path::test`` below ``tests``; none where it cannot happen.
        retried: Whether it is asked for again.
        state: What becomes of the task.
    """

    id: str
    fault: str
    outcome: str
    tests: tuple[str, ...] = ()
    retried: str = "—"
    state: str = "—"


@dataclass(frozen=True)
class Promise:
    """One promise.

    Attributes:
        id: Id in the catalogue.
        words: What is promised.
        tests: ``path::test`` below ``tests``; none where it is not made.
    """

    id: str
    words: str
    tests: tuple[str, ...] = ()


_LOOKING: Final = (
    Fault("F7", "A kept connection turns out to be closed", "none, if a fresh connection works",
          ("faults/test_connections::test_a_stale_connection_costs_no_attempt",
           "faults/test_connections::test_a_stale_connection_is_forgiven_once"), "once, which is no attempt", "kept"),
    Fault("F20", "All connections are in use",
          "`DeadlineExceeded`, never a hang; the synchronous client opens one more",
          ("faults/test_transports::test_a_full_pool_ends_at_the_deadline",), "no", "kept"),
    Fault("F25", "One connection is refused for its pace, another is not", "only the one slows down",
          ("core/test_scheduler::test_a_busy_connection_does_not_delay_another",
           "core/test_throttle::test_a_thousand_429s_slow_the_connection_but_never_stop_it"),
          "within the budget", "kept"),
    Fault("F29", "A vendor is back after an outage; 10,000 tasks wait", "no second above the configured rate",
          ("faults/test_outage::test_p10_a_herd_in_an_outage",
           "core/test_throttle::test_the_first_response_ends_the_outage_and_the_rate_ramps_up"), "—", "as answered"),
    Fault("F57", "A task goes backwards, progress falls", "none",
          ("faults/test_catalogue::test_f57_a_look_up_shows_what_the_vendor_says",), "—", "as answered"),
    Fault("F61", "A text that cannot be an id", "`InvalidTaskId`, nothing is sent",
          ("faults/test_catalogue::test_f61_what_cannot_be_an_id_is_not_sent",)),
)  # fmt: skip

_SETTINGS: Final = (
    Fault("F62", "A key with a newline at its end; with control characters inside",
          "the newline of a mounted file is stripped; `ConfigError` without the value",
          ("faults/test_secrets::test_f62_the_newline_of_a_mounted_file_is_forgiven",
           "faults/test_secrets::test_f62_to_f64_a_credential_that_cannot_be_one_is_refused_and_not_shown")),
    Fault("F63", "A key with an ellipsis or a smart quote", "`ConfigError` without the value",
          ("faults/test_secrets::test_f62_to_f64_a_credential_that_cannot_be_one_is_refused_and_not_shown",)),
    Fault("F64", "A key that is empty or a placeholder", "`ConfigError`",
          ("faults/test_secrets::test_f64_a_placeholder_is_refused",)),
    Fault("F65", "YAML that reads as something else", "cannot happen: configurations are TOML"),
    Fault("F66", "TOML nested without end, endless integers, `nan`, `inf`", "`ConfigError` with the place",
          ("core/test_config::test_a_fault_of_the_file_names_the_place_and_the_rule",
           "core/test_config::test_a_number_out_of_range_names_its_range",
           "core/test_config::test_any_text_is_a_configuration_or_a_config_error")),
    Fault("F67", "An unknown key", "`ConfigError` with the nearest known one, never the value",
          ("core/test_config::test_an_unknown_setting_gets_the_nearest_name",
           "core/test_config::test_no_fault_shows_a_value")),
    Fault("F68", "A configuration that is a directory or cannot be read, or that others can read",
          "`ConfigError`; `taskbridge doctor` tells of credentials that others can read; a file is read once, when a "
          "client is made, so none changes under it",
          ("core/test_config::test_a_file_that_cannot_be_read_is_a_config_error",
           "cli/test_upkeep::test_credentials_that_others_can_read_are_told",
           "cli/test_upkeep::test_the_file_is_for_its_owner_only")),
    Fault("F69", "`.netrc`, a proxy and certificates of the environment",
          "`.netrc` is never read, `ca_bundle` stands above the environment, this machine is reached without a proxy",
          ("faults/test_connections::test_no_file_of_the_machine_replaces_the_credential",
           "faults/test_connections::test_our_certificates_beat_those_of_the_environment",
           "core/test_config::test_the_environments_proxy_counts_only_where_none_is_set")),
    Fault("F70", "A setting out of its range", "`ConfigError` with the range",
          ("core/test_config::test_a_number_out_of_range_names_its_range",)),
)  # fmt: skip

_WEBHOOKS: Final = (
    Fault("F71", "A signature that is missing, short, of another scheme, no text", "401, one log line, nothing else",
          ("webhooks/test_signatures::test_wrong_signatures_are_refused",
           "webhooks/test_refusals::test_a_refusal_is_one_line_of_log",
           "webhooks/test_fuzz::test_unsigned_deliveries_pass_only_with_the_secret_in_the_url")),
    Fault("F72", "A byte of body, time or id changed; a body written again", "401",
          ("webhooks/test_signatures::test_one_changed_byte_is_refused",
           "webhooks/test_signatures::test_a_decoded_and_encoded_body_is_refused")),
    Fault("F73", "A time beyond 300 s, or no digits", "401",
          ("webhooks/test_signatures::test_times_beyond_five_minutes_are_refused",
           "webhooks/test_signatures::test_timestamps_that_are_not_digits_are_refused")),
    Fault("F74", "The same delivery again, also from 8 threads", "2xx, no second event",
          ("webhooks/test_ingest::test_the_same_delivery_a_hundred_times_from_eight_threads_is_one_event",)),
    Fault("F75", "A late delivery about an ended task", "2xx, told as late and not applied",
          ("webhooks/test_ingest::test_a_late_state_is_reported_but_not_applied",), "—", "kept"),
    Fault("F76", "A stranger's task or event", "2xx, noted in a bounded record; one look at most",
          ("webhooks/test_ingest::test_an_unknown_task_is_requested_once",
           "webhooks/test_ingest::test_the_memory_of_events_is_bounded")),
    Fault("F77", "Proved, but unreadable, huge or compressed", "400, 413 or 415; no effect",
          ("webhooks/test_refusals::test_each_refusal_has_its_http_status",
           "webhooks/test_fuzz::test_a_signed_but_odd_delivery_is_parsed_or_refused")),
    Fault("F78", "Senders that drip", "cannot happen here: the web server has the body whole before we see it"),
    Fault("F79", "An event that cannot be kept", "the error goes to the caller, so that no 2xx is said; it counts anew",
          ("webhooks/test_ingest::test_a_failed_confirmation_leaves_the_event_to_the_next_delivery",)),
    Fault("F80", "An old and a new secret", "both are taken until one is removed",
          ("webhooks/test_refusals::test_old_and_new_secret_are_accepted_until_one_is_removed",)),
    Fault("F81", "HEAD, GET, OPTIONS to a receiver", "405, no effect",
          ("webhooks/test_frameworks::test_flask_with_cloudconvert",
           "webhooks/test_frameworks::test_fastapi_with_scan_documents",
           "webhooks/test_frameworks::test_django_with_smartdocumentor")),
    Fault("F82", "A secret of the URL guessed", "401, compared in constant time; URLs are in no log and no error",
          ("webhooks/test_signatures::test_a_url_without_the_secret_is_refused",
           "webhooks/test_events::test_smartdocumentor_needs_the_secret_in_the_url")),
)  # fmt: skip

_NO_STORE: Final = (
    "cannot happen: the library keeps tasks in memory alone, the application keeps refs where it wants to"
)

_PROCESSES: Final = (
    Fault("F83", "Killed in the middle of a write", _NO_STORE),
    Fault("F84", "A store that is cut", _NO_STORE),
    Fault("F85", "A store on a full disk", _NO_STORE),
    Fault("F86", "Two processes and one store", _NO_STORE),
    Fault("F87", "A store on a network file system", _NO_STORE),
    Fault("F88", "A fork after the first call", "every answer is the asker's own",
          ("faults/test_connections::test_children_of_a_fork_get_their_own_answers",)),
    Fault("F89", "SIGINT, SIGTERM, a second one; an interruption in any phase of a call",
          "130 or 143 with the way back; the interruption goes on, and no connection is left",
          ("cli/test_interrupts::test_a_signal_decides_the_code_of_every_command",
           "cli/test_interrupts::test_a_second_signal_ends_at_once",
           "faults/test_interrupted::test_an_interruption_leaves_no_connection"), "no", "kept"),
    Fault("F90", "The wall clock jumps by hours or days", "no freeze, no burst",
          ("core/test_flows::test_a_wall_clock_jump_does_no_harm",)),
    Fault("F91", "A plugin that cannot be imported, exits, has the wrong type or another's name",
          "`ProviderLoadError` with its distribution, for that provider only",
          ("core/test_registry::test_a_broken_plugin_disables_itself_and_says_why",
           "core/test_registry::test_of_two_strangers_with_one_name_both_are_disabled",
           "core/test_registry::test_a_stranger_that_takes_the_name_of_a_built_in_is_disabled")),
)  # fmt: skip

_ORDERS: Final = (
    Fault("F97", "A submit that was sent, then the end, a reset or silence", "`SubmitUncertain`",
          ("faults/test_submits::test_a_submit", "lifecycle/test_uncertain::test_a_submission_over_a_broken_socket_arrives_once"),
          "no", "no task"),
    Fault("F98", "A submit answered with 2xx and no id, or cut at any offset", "`SubmitUncertain`, with the cause",
          ("lifecycle/test_uncertain::test_the_cause_of_an_unreadable_confirmation_is_kept",
           "lifecycle/test_uncertain::test_a_response_truncated_at_any_offset_causes_no_second_submission"), "no", "no task"),
    Fault("F99", "502, 504, 520 to 524 to a submit; at CloudConvert 500 too", "`SubmitUncertain`",
          ("lifecycle/test_uncertain::test_an_uncertain_submission_is_sent_once_and_raises_submit_uncertain",
           "lifecycle/test_uncertain::test_a_job_that_cloudconvert_answered_with_500_and_runs_is_recovered"),
          "no", "no task"),
    Fault("F100", "A step of a submit breaks that makes no order: an upload",
          "that step's error, with the ids made so far",
          ("faults/test_submits::test_an_upload",
           "lifecycle/test_uncertain::test_a_failed_upload_is_its_own_error_and_names_the_uploaded_files"),
          "by step", "no task"),
    Fault("F101", "An upload form refuses with 403 and XML", "`PermissionDenied`; the account is not paused",
          ("lifecycle/test_uncertain::test_a_refused_upload_form_does_not_pause_the_connection",), "no", "no task"),
    Fault("F102", "A peer that stops reading", "`DeadlineExceeded`",
          ("faults/test_submits::test_f102_a_peer_that_stops_reading_ends_at_the_deadline",),
          "where the step may be repeated", "no task"),
    Fault("F103", "413 or 401 while the body is leaving", "by its status",
          ("faults/test_submits::test_f103_a_refusal_while_the_body_leaves_counts_by_its_status",), "no", "no task"),
    Fault("F104", "A source that is missing, a directory, unreadable; that shrinks while it is sent", "`OSError`",
          ("lifecycle/test_inputs::test_a_missing_file_is_pythons_own_error",
           "lifecycle/test_inputs::test_a_directory_is_pythons_own_error",
           "faults/test_submits::test_f104_a_file_that_shrinks_while_it_is_sent_is_an_error_of_the_system"),
          "no", "no task"),
    Fault("F105", "A stream that can be read once", "none: it is read once, and its length is always known",
          ("lifecycle/test_inputs::test_a_stream_is_read_to_its_end_once_and_can_be_sent_twice",
           "faults/test_transports::test_a_form_goes_out_with_its_length"), "—", "as answered"),
    Fault("F106", "A file name with quotes, line breaks, folders", "none: the bare name, escaped",
          ("lifecycle/test_inputs::test_a_document_name_is_reduced_to_a_plain_file_name",
           "lifecycle/test_inputs::test_a_name_with_quotes_is_sent_as_one_field"), "—", "as answered"),
    Fault("F115", "A call of the asynchronous client is cancelled",
          "`CancelledError`; no connection and no asyncio task is left; an order was logged before it left",
          ("faults/test_connections::test_a_cancelled_call_leaves_nothing_behind",
           "lifecycle/test_uncertain::test_cancelling_a_submission_propagates_the_cancellation",
           "lifecycle/test_submit::test_a_submission_is_logged_before_it_is_sent"), "no", "kept"),
)  # fmt: skip

_CODE: Final = (
    Fault("F111", "A flow without an end", "`ContractError` after 32 requests",
          ("core/test_broken_providers::test_an_endless_flow_is_ended",), "no", "kept"),
    Fault("F112", "A flow that trips over an answer", "`ContractError` with the provider and the step",
          ("core/test_broken_providers::test_a_provider_that_trips_is_named",), "no", "kept"),
    Fault("F113", "An operation that is no flow, a flow that gives no task", "`ContractError`",
          ("core/test_broken_providers::test_what_is_no_flow_or_gives_no_task_is_named",), "no", "kept"),
    Fault("F114", "A flow that is abandoned", "it is closed",
          ("core/test_broken_providers::test_an_abandoned_flow_is_closed",), "no", "kept"),
    Fault("F116", "One asynchronous client, two event loops", "`ConfigError`",
          ("faults/test_transports::test_a_client_belongs_to_one_event_loop",)),
    Fault("F117", "Nobody reads the output; a terminal without Unicode", "a quiet end; escapes",
          ("cli/test_streams::test_nobody_reading_is_a_quiet_end",
           "cli/test_streams::test_a_terminal_without_unicode_gets_escapes",
           "cli/test_texts::test_a_task_is_shown_without_control_characters")),
    Fault("F118", "A key on the command line", "there is no such option",
          ("cli/test_start::test_no_option_takes_a_key",)),
    Fault("F119", "Every class of error at the command line", "one exit code a class; a line of JSON",
          ("cli/test_start::test_every_error_has_an_exit_code_of_the_table",
           "cli/test_tasks::test_errors_have_a_code_and_a_line_of_json")),
    Fault("F120", "An emulator whose port is taken, or that is to listen elsewhere", "a clear error; loopback only",
          ("emulator/test_shell::test_a_port_in_use_is_named",
           "emulator/test_shell::test_only_loopback_addresses_are_accepted")),
)  # fmt: skip

_D: Final = "faults/test_downloads::test_"

_DOWNLOADS: Final = (
    Fault("F60", "A link, or a redirect of one, into a private network, in any spelling; a name that leads there",
          "`MalformedResponse`, nothing is fetched; the address that was checked is the one that is connected to",
          (f"{_D}a_link_into_a_private_network_is_not_asked", f"{_D}a_name_is_asked_at_the_address_that_was_checked",
           "lifecycle/test_fetching::test_a_forbidden_url_is_refused",
           "lifecycle/test_fetching::test_odd_notations_are_always_refused"), "no", "kept"),
    Fault("", "A vendor's own host redirects to another",
          "followed, at most five times; the key and all header fields but `Accept` and the range stay behind",
          (f"{_D}a_key_goes_to_no_other_host", f"{_D}a_key_does_not_come_back_with_the_hop_after",
           f"{_D}hops_without_end_are_left"), "—", "kept"),
    Fault("F107", "A link answers 401, 403, 404 or 410",
          "the task is looked up once for a fresh link; then `PermissionDenied` or `TaskNotFound`, and no pause",
          (f"{_D}a_dead_link_is_looked_up_once_more", f"{_D}a_link_that_stays_dead_says_how_long_links_live"),
          "once, by the fresh link", "kept"),
    Fault("", "A link answers 5xx", "`ServerError`; the vendor's pace is not slowed",
          (f"{_D}a_broken_host_of_links_does_not_slow_the_vendor",), "yes", "kept"),
    Fault("F108", "A file is cut anywhere, or has fewer bytes than was said",
          "`TruncatedResponse`; no file under the name",
          (f"{_D}a_file_that_is_cut_anywhere_is_no_file", f"{_D}what_broke_off_is_gone_on_with",
           f"{_D}a_host_that_cannot_go_on_is_not_asked_for_ever"),
          "yes, from where it broke off if the host takes ranges and gave a strong ETag; anew with each megabyte",
          "kept"),
    Fault("", "Another part of the file than was asked for, or 416", "none; it begins anew",
          (f"{_D}another_part_than_was_asked_for_makes_it_begin_anew",), "yes", "kept"),
    Fault("", "More bytes than the vendor says", "`MalformedResponse`; no file under the name",
          (f"{_D}a_file_of_another_length_than_the_vendor_says_is_no_file",), "no", "kept"),
    Fault("", "A compressed body", "undone, if it is gzip; cut, it is `TruncatedResponse`",
          (f"{_D}a_compressed_body_is_undone",), "yes", "kept"),
    Fault("", "More bytes than `max_bytes`", "`ResponseTooLarge`; no file under the name",
          (f"{_D}a_file_over_the_limit_is_left",), "no", "kept"),
    Fault("", "Fewer than 20 kB a second in the mean, after `request_timeout`", "`DeadlineExceeded`",
          (f"{_D}a_file_that_drips_has_not",), "while time remains", "kept"),
    Fault("F109", "The disk is full; a file of that name is there, or appears; a name such as `../../x` or `CON`",
          "`OSError` of the system, what was there is as it was; a safe name in the folder",
          (f"{_D}a_full_disk_leaves_what_was_there", f"{_D}a_file_that_appears_meanwhile_is_left_alone",
           f"{_D}nothing_lands_outside_of_the_folder"), "no", "kept"),
    Fault("F110", "A completed task without a result, a file without a link",
          "`MalformedResponse` when it is asked for, not from `get`",
          (f"{_D}a_completed_task_without_a_result_is_told_where_it_is_asked_for",
           f"{_D}a_file_without_a_link_cannot_be_had"), "no", "kept"),
    Fault("", "A call is cancelled, or `on_progress` raises", "that error; the temporary file is gone",
          (f"{_D}a_download_that_is_cancelled_leaves_nothing",
           f"{_D}what_on_progress_raises_ends_the_download_and_comes_out"), "no", "kept"),
)  # fmt: skip

ELSEWHERE: Final[Mapping[str, tuple[Fault, ...]]] = {
    "Looking": _LOOKING,
    "Submitting, uploading, cancelling": _ORDERS,
    "Downloads": _DOWNLOADS,
    "Settings and credentials": _SETTINGS,
    "Webhooks": _WEBHOOKS,
    "Processes, clocks, plugins": _PROCESSES,
    "Code, command line, emulators": _CODE,
}
"""By section of the page."""

PROMISES: Final[tuple[Promise, ...]] = (
    Promise("P1", "At most three requests for one look-up, the first included; the error says how many",
            ("faults/test_catalogue::test_a_look_up",)),
    Promise("P2", "A retry budget for each connection: at most 10 % more requests than one look each",
            ("core/test_throttle::test_retries_add_at_most_a_tenth_to_the_requests",
             "core/test_throttle::test_ten_threads_do_not_overspend_the_retry_budget",
             "core/test_flows::test_without_a_retry_budget_the_first_error_is_raised")),
    Promise("P3", "A failed look delays the next one: no loop can spin",
            ("core/test_throttle::test_the_rate_is_kept_under_any_load",)),
    Promise("P4", "Full jitter on every retry; tasks that come together are spread",
            ("core/test_policy::test_pauses_are_spread_evenly_below_their_ceiling",
             "core/test_scheduler::test_tasks_added_together_are_spread")),
    Promise("P5", "Retry-After is a floor, over an hour nobody sleeps; `1` for a minute costs ≤ 10 requests",
            ("core/test_flows::test_retry_after_is_a_lower_bound",
             "core/test_flows::test_a_retry_after_of_more_than_an_hour_is_never_slept",
             "core/test_throttle::test_retry_after_every_second_costs_few_requests")),
    Promise("P6", "Only what is safe is repeated: one order at most arrives, whatever breaks",
            ("faults/test_submits::test_a_submit", "faults/test_cancels::test_a_cancel")),
    Promise("P7", "One table decides by status what is repeated",
            ("core/test_policy::test_one_table_decides_what_is_repeated",)),
    Promise("P8", "Durations are monotonic: a jump of the wall clock neither freezes nor floods",
            ("core/test_flows::test_a_wall_clock_jump_does_no_harm",)),
    Promise("P9", "A failed look is no failed task, and every wait has its deadline",
            ("faults/test_catalogue::test_the_state_is_kept",)),
    Promise("P10", "10,000 tasks, a minute of outage: ≤ 100 requests in it, and no second after it above the rate",
            ("faults/test_outage::test_p10_a_herd_in_an_outage",)),
    Promise("P11", "A total deadline over head, body, retries and token",
            ("core/test_transport_limits::test_the_total_time_holds_against_a_server_that_drips",
             "core/test_flows::test_request_timeout_covers_all_attempts")),
    Promise("P12", "Credentials never cross an origin",
            ("faults/test_redirects::test_a_look_up_is_not_led_away",
             "lifecycle/test_submit::test_a_redirected_document_is_fetched_without_the_key")),
    Promise("P13", "No log, output, error, repr, pickle or traceback with locals shows a credential",
            ("faults/test_secrets::test_the_watch_sees_what_leaks",
             "faults/test_secrets::test_an_interruption_shows_no_credential",
             "faults/test_secrets::test_the_query_of_an_address_is_in_no_log")),
    Promise("P14", "Answers are bounded while they are read; memory grows by at most `max_body` + 8 MiB",
            ("faults/test_sizes::test_memory_does_not_grow_with_the_answer",)),
    Promise("P15", "An answer cut at any byte is the whole answer or an error that may be repeated",
            ("faults/test_cuts::test_cut_at_every_byte", "faults/test_cuts::test_cut_at_every_byte_of_another_frame")),
    Promise("P16", "TLS on, no silent way around it",
            ("faults/test_connections::test_our_certificates_beat_those_of_the_environment",
             "core/test_config::test_an_address_that_would_harm_is_refused")),
    Promise("P17", "What is stored holds no secret: refs are plain text, clients and settings refuse to be pickled",
            ("core/test_client::test_a_client_refuses_to_be_pickled_and_shows_no_key",
             "core/test_models::test_a_ref_pickles_as_a_ref")),
    Promise("P18", "A vendor's links are never fetched unasked, and never into a private network",
            ("lifecycle/test_fetching::test_a_forbidden_url_is_refused",
             "lifecycle/test_fetching::test_a_host_name_that_resolves_to_this_machine_is_refused")),
    Promise("P19", "Webhooks are proved by their raw bytes before anything is parsed; all else is `WebhookRejected`",
            ("webhooks/test_refusals::test_an_unverified_body_is_never_parsed",
             "webhooks/test_fuzz::test_unsigned_deliveries_pass_only_with_the_secret_in_the_url")),
    Promise("P20", "A signed time counts for 300 s both ways",
            ("webhooks/test_fuzz::test_a_signature_is_fresh_for_five_minutes_before_and_after",)),
    Promise("P21", "Repeats and late deliveries do no harm",
            ("webhooks/test_ingest::test_the_same_delivery_a_hundred_times_from_eight_threads_is_one_event",
             "webhooks/test_ingest::test_a_late_state_is_reported_but_not_applied")),
    Promise("P22", "A webhook that proves no time is a hint: the API is asked",
            ("webhooks/test_ingest::test_a_forged_end_causes_one_status_request_and_changes_nothing",)),
    Promise("P23", "Several secrets at a time, so that they rotate without a gap",
            ("webhooks/test_refusals::test_old_and_new_secret_are_accepted_until_one_is_removed",)),
    Promise("P24", "A receiver without a secret is loud",
            ("webhooks/test_refusals::test_a_missing_secret_is_an_error",)),
    Promise("P25", "Deliveries are bounded in size; slow senders are the web server's business",
            ("webhooks/test_refusals::test_each_refusal_has_its_http_status",)),
    Promise("P26", "A submit of unknown fate says so, with what is needed to find it",
            ("lifecycle/test_uncertain::test_an_uncertain_submission_is_sent_once_and_raises_submit_uncertain",
             "lifecycle/test_uncertain::test_an_uncertain_submission_is_recovered")),
    Promise("P27", "An unknown word is no crash and no end",
            ("providers/test_mapping_tables::test_an_unheard_word_is_processing",
             "core/test_flows::test_an_unknown_word_is_logged_once_and_is_processing")),
    Promise("P28", "Plugins fail visibly and cannot stand in for another",
            ("core/test_registry::test_a_broken_plugin_disables_itself_and_says_why",
             "core/test_registry::test_a_stranger_that_takes_the_name_of_a_built_in_is_disabled")),
    Promise("P29", "Errors of the configuration name the key and the rule, never the value",
            ("core/test_config::test_no_fault_shows_a_value",
             "faults/test_secrets::test_the_environment_is_not_shown_with_an_error")),
    Promise("P30", "Threads and forks get their own answers",
            ("faults/test_connections::test_sixteen_threads_get_their_own_answers",
             "faults/test_connections::test_children_of_a_fork_get_their_own_answers")),
    Promise("P31", "Both clients do the same", ("faults/test_catalogue::test_a_look_up",
                                               "faults/test_connections::test_both_clients_send_the_same")),
    Promise("P32", "A downloaded file is there whole or not at all, and never outside its folder",
            (f"{_D}a_file_that_is_cut_anywhere_is_no_file", f"{_D}nothing_lands_outside_of_the_folder")),
    Promise("P33", "What is committed survives: not promised, there is no durable store"),
    Promise("P34", "Events survive a restart: not promised, there is no durable store"),
)  # fmt: skip
"""What is promised, and where it is proved."""
