"""The faults that are no row of `catalogue`, with outcome and tests, and the promises.

A test checks that each test named here exists and is not skipped. A fault that cannot happen says why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        id: Id in the catalogue; empty if it has none.
        fault: What is injected.
        outcome: The result.
        tests: ``path::test`` below ``tests``; none if it cannot happen.
        retried: Whether the request is retried.
        state: What happens to the task.
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
        tests: ``path::test`` below ``tests``; none if it is not made.
    """

    id: str
    words: str
    tests: tuple[str, ...] = ()


_POLLING: Final = (
    Fault(
        "F7",
        "A reused connection has been closed by the peer",
        "none, if a new connection works",
        (
            "faults/test_connections::test_a_stale_connection_costs_no_attempt",
            "faults/test_connections::test_a_stale_connection_is_forgiven_once",
        ),
        "once, not counted as an attempt",
        "kept",
    ),
    Fault(
        "",
        "Links and upload forms of any number of hosts",
        "none: no connection to them is kept, and those of the vendor are kept to a few hosts",
        ("faults/test_transports::test_connections_are_kept_to_few_hosts",),
        "—",
        "kept",
    ),
    Fault(
        "F20",
        "All connections are in use",
        "`DeadlineExceeded`, never a hang; the synchronous client opens one more",
        ("faults/test_transports::test_a_full_pool_ends_at_the_deadline",),
        "no",
        "kept",
    ),
    Fault(
        "F25",
        "One connection is rate limited, another is not",
        "only the first slows down",
        (
            "core/test_scheduler::test_a_busy_connection_does_not_delay_another",
            "core/test_throttle::test_a_thousand_429s_slow_the_connection_but_never_stop_it",
        ),
        "within the budget",
        "kept",
    ),
    Fault(
        "F29",
        "A vendor recovers from an outage while 10,000 tasks wait",
        "the configured rate is never exceeded",
        (
            "faults/test_outage::test_p10_ten_thousand_tasks_through_an_outage",
            "core/test_throttle::test_the_first_response_ends_the_outage_and_the_rate_ramps_up",
        ),
        "—",
        "as answered",
    ),
    Fault(
        "",
        "A vendor does not respond while many tasks wait",
        "one warning when that begins and one when it ends; `WaitTimeout` says when the task was last seen, and why",
        (
            "core/test_outages::test_an_outage_is_logged_once_and_so_is_its_end",
            "core/test_outages::test_a_wait_that_ends_in_an_outage_says_so_for_every_task",
        ),
        "by single probes",
        "kept",
    ),
    Fault(
        "F57",
        "A task goes back to an earlier status, progress falls",
        "none",
        ("faults/test_catalogue::test_f57_get_returns_what_the_vendor_reports",),
        "—",
        "as answered",
    ),
    Fault(
        "F61",
        "An invalid id",
        "`InvalidTaskId`, nothing is sent",
        ("faults/test_catalogue::test_f61_an_invalid_id_is_not_sent",),
    ),
)

_SETTINGS: Final = (
    Fault(
        "F62",
        "A key with a newline at its end, or with control characters inside",
        "the final newline is removed; otherwise `ConfigError` without the value",
        (
            "faults/test_secrets::test_f62_the_newline_of_a_mounted_file_is_removed",
            "faults/test_secrets::test_f62_to_f64_an_invalid_credential_is_refused_and_not_shown",
        ),
    ),
    Fault(
        "F63",
        "A key with an ellipsis or a smart quote",
        "`ConfigError` without the value",
        ("faults/test_secrets::test_f62_to_f64_an_invalid_credential_is_refused_and_not_shown",),
    ),
    Fault(
        "F64",
        "A key that is empty or a placeholder",
        "`ConfigError`",
        ("faults/test_secrets::test_f64_a_placeholder_is_refused",),
    ),
    Fault("F65", "YAML that means something else", "cannot happen: configuration files are TOML"),
    Fault(
        "F66",
        "Deeply nested TOML, huge integers, `nan`, `inf`",
        "`ConfigError` with line and column",
        (
            "core/test_config::test_a_config_error_names_the_place_and_the_rule",
            "core/test_config::test_a_number_out_of_range_names_its_range",
            "core/test_config::test_any_text_is_a_configuration_or_a_config_error",
        ),
    ),
    Fault(
        "F67",
        "An unknown key",
        "`ConfigError` with the nearest known key, never the value",
        (
            "core/test_config::test_an_unknown_setting_gets_the_nearest_name",
            "core/test_config::test_no_config_error_shows_a_value",
        ),
    ),
    Fault(
        "F68",
        "A configuration file that is a directory, unreadable, or readable by others",
        "`ConfigError`; `taskbridge doctor` reports credentials that others can read; a file is read once, when a "
        "client is created, so later changes have no effect",
        (
            "core/test_config::test_a_file_that_cannot_be_read_is_a_config_error",
            "cli/test_setup_commands::test_credentials_that_others_can_read_are_reported",
            "cli/test_setup_commands::test_only_the_owner_can_read_the_file",
        ),
    ),
    Fault(
        "F69",
        "`.netrc`; proxy and certificates in the environment",
        "`.netrc` is never read, `ca_bundle` overrides the environment, and this machine is reached without a proxy",
        (
            "faults/test_connections::test_netrc_never_replaces_the_credential",
            "faults/test_connections::test_ca_bundle_takes_precedence_over_the_environment",
            "core/test_config::test_the_environments_proxy_counts_only_if_none_is_set",
        ),
    ),
    Fault(
        "",
        "`SSL_CERT_FILE`, `REQUESTS_CA_BUNDLE` or `CURL_CA_BUNDLE` names a file that is gone",
        "`ConfigError` that names the variable, at the first request over TLS; without TLS it does not matter",
        (
            "faults/test_proxies::test_a_stale_variable_is_named",
            "faults/test_proxies::test_a_stale_variable_does_not_matter_without_tls",
        ),
    ),
    Fault(
        "",
        "A proxy that cannot be reached, refuses CONNECT, answers 407, breaks or closes the tunnel, or intercepts TLS",
        "`ConnectFailed`, or `TlsError` for its certificate, never `SubmitUncertain`; the message has the proxy's host "
        "and port and its status, never its credentials",
        (
            "faults/test_proxies::test_a_proxy_that_breaks_the_tunnel_is_named",
            "faults/test_proxies::test_a_proxy_that_intercepts_tls_is_named",
            "faults/test_proxies::test_a_407_to_a_forwarded_request_is_the_proxys",
            "faults/test_proxies::test_a_proxy_that_is_not_reached_is_named",
            "faults/test_proxies::test_a_dead_socks_proxy_is_named",
            "faults/test_proxies::test_a_proxy_that_repeats_its_credentials_does_not_show_them",
        ),
        retried="yes, but `TlsError`",
        state="kept",
    ),
    Fault(
        "",
        "A link with `%2f`, dots, brackets or an empty query",
        "sent byte for byte, also through a proxy",
        ("faults/test_transports::test_a_link_leaves_byte_for_byte",),
    ),
    Fault(
        "F70",
        "A setting out of its range",
        "`ConfigError` with the range",
        ("core/test_config::test_a_number_out_of_range_names_its_range",),
    ),
)

_WEBHOOKS: Final = (
    Fault(
        "F71",
        "A signature that is missing, too short, of another scheme, or not text",
        "401 and one log line",
        (
            "webhooks/test_signatures::test_wrong_signatures_are_refused",
            "webhooks/test_refusals::test_a_refusal_is_one_line_of_log",
            "webhooks/test_fuzz::test_unsigned_deliveries_pass_only_with_the_secret_in_the_url",
        ),
    ),
    Fault(
        "F72",
        "A changed byte of body, time or id; a re-encoded body",
        "401",
        (
            "webhooks/test_signatures::test_one_changed_byte_is_refused",
            "webhooks/test_signatures::test_a_decoded_and_encoded_body_is_refused",
        ),
    ),
    Fault(
        "F73",
        "A time that differs by more than 300 s, or is not a number",
        "401",
        (
            "webhooks/test_signatures::test_times_beyond_five_minutes_are_refused",
            "webhooks/test_signatures::test_timestamps_that_are_not_digits_are_refused",
        ),
    ),
    Fault(
        "F74",
        "A repeated delivery, also from 8 threads at once",
        "2xx, or 503 while it is being processed; no second event",
        (
            "webhooks/test_ingest::test_the_same_delivery_a_hundred_times_from_eight_threads_is_one_event",
            "store/test_receivers::test_an_event_that_another_process_is_processing_is_to_be_delivered_again",
        ),
    ),
    Fault(
        "F75",
        "A late delivery about a finished task",
        "2xx, reported as late and not applied",
        ("webhooks/test_ingest::test_a_late_state_is_reported_but_not_applied",),
        "—",
        "kept",
    ),
    Fault(
        "F76",
        "An unknown task or event",
        "503 for the first delivery, unless the vendor delivers nothing again, then 2xx; kept in a bounded record; for "
        "two deliveries, at most two status requests each",
        (
            "webhooks/test_ingest::test_an_unknown_task_is_requested_for_two_deliveries_only",
            "webhooks/test_receivers::test_an_event_that_is_quicker_than_the_api_is_to_be_delivered_again",
            "webhooks/test_ingest::test_the_memory_of_events_is_bounded",
        ),
    ),
    Fault(
        "F77",
        "Verified, but unreadable, too large or compressed",
        "400, 413 or 415; no effect",
        (
            "webhooks/test_refusals::test_each_refusal_has_its_http_status",
            "webhooks/test_fuzz::test_a_signed_but_odd_delivery_is_parsed_or_refused",
        ),
    ),
    Fault("F78", "Senders that drip", "cannot happen here: the web server has the body whole before we see it"),
    Fault(
        "F79",
        "An event that the application cannot store, also because it is killed",
        "the error is raised, so that no 2xx is sent; the next delivery counts, after a kill the next one after five "
        "minutes",
        (
            "webhooks/test_ingest::test_a_failed_confirmation_leaves_the_event_to_the_next_delivery",
            "webhooks/test_ingest::test_an_event_is_processed_once_the_block_that_acts_on_it_has_ended",
            "store/test_receivers::test_an_event_whose_receiver_was_killed_counts_again_after_five_minutes",
        ),
    ),
    Fault(
        "F80",
        "An old and a new secret",
        "both are accepted until one is removed",
        ("webhooks/test_refusals::test_old_and_new_secret_are_accepted_until_one_is_removed",),
    ),
    Fault(
        "F81",
        "HEAD, GET, OPTIONS to a receiver",
        "405, no effect",
        (
            "webhooks/test_frameworks::test_flask_with_cloudconvert",
            "webhooks/test_frameworks::test_fastapi_with_scan_documents",
            "webhooks/test_frameworks::test_django_with_smartdocumentor",
        ),
    ),
    Fault(
        "F82",
        "A guessed secret in the URL",
        "401, compared in constant time; no log or error contains the URL",
        (
            "webhooks/test_signatures::test_a_url_without_the_secret_is_refused",
            "webhooks/test_events::test_smartdocumentor_needs_the_secret_in_the_url",
        ),
    ),
)

_PROCESSES: Final = (
    Fault(
        "F83",
        "Killed during a write to a store",
        "the next owner takes over; nothing is lost or doubled",
        (
            "store/test_owners::test_owners_that_are_killed_lose_nothing_and_double_nothing",
            "store/test_postgresql::test_a_database_that_was_killed_loses_and_doubles_nothing",
        ),
        "—",
        "kept",
    ),
    Fault(
        "F84",
        "A damaged store, or one of a newer version",
        "`ConfigError` when it is opened; the file stays as it is",
        ("store/test_store::test_a_file_that_is_no_store_is_refused",),
    ),
    Fault(
        "F85",
        "A store on a full disk",
        "`StoreUnavailable`; nothing is sent until it can be written",
        (
            "store/test_store::test_a_full_disk_stores_nothing_and_says_so",
            "store/test_failures::test_an_owner_whose_disk_is_full_sends_nothing_until_it_can_write",
        ),
        "—",
        "kept",
    ),
    Fault(
        "F86",
        "Several processes with one store",
        "one owns each connection; the others wait, and an owner that lost it writes nothing",
        (
            "store/test_owners::test_the_next_owner_takes_over",
            "store/test_store::test_an_owner_that_lost_its_lock_writes_nothing",
            "store/test_statement_threads::test_a_watcher_that_is_cancelled_while_it_takes_connections_leaves_none_locked",
        ),
        "—",
        "kept",
    ),
    Fault(
        "F87",
        "A store on a network file system",
        "`ConfigError` when it is opened; use PostgreSQL",
        ("store/test_store::test_a_network_drive_is_refused",),
    ),
    Fault(
        "F88",
        "A fork after the first call, or while another thread renews the credential, waits or holds a lock",
        "each caller gets its own response; the child inherits no lock, renews the credential itself, and leaves the "
        "parent's connections open; a wait that began before the fork ends in the child with `ConfigError`",
        (
            "faults/test_connections::test_children_of_a_fork_get_their_own_responses",
            "faults/test_forks::test_a_fork_while_the_credential_is_renewed",
            "faults/test_forks::test_a_fork_inside_of_a_wait",
            "faults/test_forks::test_a_child_leaves_the_parents_tls_connections_open",
            "faults/test_forks::test_no_lock_is_inherited",
        ),
    ),
    Fault(
        "F89",
        "SIGINT, SIGTERM, a second signal; an interruption in any phase of a call",
        "exit code 130 or 143 with the command to resume; the interruption propagates, and no connection is left open",
        (
            "cli/test_signals::test_a_signal_decides_the_code_of_every_command",
            "cli/test_signals::test_a_second_signal_ends_at_once",
            "faults/test_interrupted::test_an_interruption_leaves_no_connection",
        ),
        "no",
        "kept",
    ),
    Fault(
        "F90",
        "The wall clock jumps by hours or days",
        "no hang, no burst of requests",
        ("core/test_flows::test_a_wall_clock_jump_does_no_harm",),
    ),
    Fault(
        "F91",
        "A plugin that cannot be imported, exits, has the wrong type, or takes another provider's name",
        "`ProviderLoadError` with its distribution, for this provider only",
        (
            "core/test_registry::test_a_broken_plugin_disables_itself_and_says_why",
            "core/test_registry::test_two_third_parties_with_the_same_name_are_both_disabled",
            "core/test_registry::test_a_third_party_that_takes_a_built_in_name_is_disabled_and_never_imported",
        ),
    ),
)

_SUBMITTING: Final = (
    Fault(
        "F97",
        "A submission was sent, then the connection closes, resets or stays silent",
        "`SubmitUncertain`",
        (
            "faults/test_submits::test_submit_meets_each_fault",
            "lifecycle/test_uncertain::test_a_submission_over_a_broken_socket_arrives_once",
        ),
        "no",
        "no task",
    ),
    Fault(
        "F98",
        "A submission is answered with 2xx without an id, or truncated anywhere",
        "`SubmitUncertain`, with the cause",
        (
            "lifecycle/test_uncertain::test_the_cause_of_an_unreadable_confirmation_is_kept",
            "lifecycle/test_uncertain::test_a_response_truncated_at_any_offset_causes_no_second_submission",
        ),
        "no",
        "no task",
    ),
    Fault(
        "F99",
        "502, 504, 520 to 524 in response to a submission; for CloudConvert also 500",
        "`SubmitUncertain`",
        (
            "lifecycle/test_uncertain::test_an_uncertain_submission_is_sent_once_and_raises_submit_uncertain",
            "lifecycle/test_uncertain::test_a_job_that_cloudconvert_answered_with_500_and_runs_is_recovered",
        ),
        "no",
        "no task",
    ),
    Fault(
        "F100",
        "A step of a submission fails that starts no work, such as an upload",
        "that step's error, with the ids created so far",
        (
            "faults/test_submits::test_upload_meets_each_fault",
            "lifecycle/test_uncertain::test_a_failed_upload_is_its_own_error_and_names_the_uploaded_files",
        ),
        "depends on the step",
        "no task",
    ),
    Fault(
        "F101",
        "The host of an upload form responds with 401, 402 or 403, or with 429",
        "`PermissionDenied` (`ApiError` for 402), or `RateLimited`; the account is neither paused nor slowed down",
        (
            "lifecycle/test_uncertain::test_a_refused_upload_form_does_not_pause_the_connection",
            "faults/test_refusals::test_a_refused_upload_says_nothing_about_the_account",
            "faults/test_refusals::test_a_wait_continues_while_an_upload_is_refused",
            "faults/test_refusals::test_a_storage_host_that_is_busy_does_not_slow_down_the_api",
            "cli/test_run::test_a_refused_upload_fails_that_file_and_no_other",
        ),
        "no",
        "no task",
    ),
    Fault(
        "F102",
        "The peer stops reading",
        "`DeadlineExceeded`",
        ("faults/test_submits::test_f102_a_peer_that_stops_reading_ends_at_the_deadline",),
        "if the step may be repeated",
        "no task",
    ),
    Fault(
        "F103",
        "413 or 401 while the body is being sent",
        "the error for that status",
        ("faults/test_submits::test_f103_an_error_response_while_the_body_is_sent_counts_by_its_status",),
        "no",
        "no task",
    ),
    Fault(
        "F104",
        "A source that is missing, a directory, unreadable, or shrinks while it is sent",
        "`OSError`",
        (
            "lifecycle/test_inputs::test_a_missing_file_is_pythons_own_error",
            "lifecycle/test_inputs::test_a_directory_is_pythons_own_error",
            "faults/test_submits::test_f104_a_file_that_shrinks_while_it_is_sent_is_an_os_error",
        ),
        "no",
        "no task",
    ),
    Fault(
        "F105",
        "A stream that can be read only once",
        "none: it is read once, and its length is always known",
        (
            "lifecycle/test_inputs::test_a_stream_is_read_to_its_end_once_and_can_be_sent_twice",
            "faults/test_transports::test_a_form_is_sent_with_its_length",
        ),
        "—",
        "as answered",
    ),
    Fault(
        "F106",
        "A file name with quotes, line breaks or folders",
        "none: the name without folders is sent, escaped",
        (
            "lifecycle/test_inputs::test_a_document_name_is_reduced_to_a_plain_file_name",
            "lifecycle/test_inputs::test_a_name_with_quotes_is_sent_as_one_field",
        ),
        "—",
        "as answered",
    ),
    Fault(
        "F115",
        "A call of the asynchronous client is cancelled",
        "`CancelledError`; no connection and no asyncio task is left; a submission was logged before it was sent",
        (
            "faults/test_connections::test_a_cancelled_call_leaves_nothing_behind",
            "lifecycle/test_uncertain::test_cancelling_a_submission_propagates_the_cancellation",
            "lifecycle/test_submit::test_a_submission_is_logged_before_it_is_sent",
        ),
        "no",
        "kept",
    ),
)

_CODE: Final = (
    Fault(
        "F111",
        "A flow that never ends",
        "`ContractError` after 32 requests",
        ("core/test_broken_providers::test_an_endless_flow_is_ended",),
        "no",
        "kept",
    ),
    Fault(
        "F112",
        "A flow that raises on a response",
        "`ContractError` with the provider and the step",
        ("core/test_broken_providers::test_a_provider_that_raises_is_named",),
        "no",
        "kept",
    ),
    Fault(
        "F113",
        "An operation that is not a flow, or a flow that returns no task",
        "`ContractError`",
        ("core/test_broken_providers::test_an_operation_that_is_no_flow_or_returns_no_task_is_named",),
        "no",
        "kept",
    ),
    Fault(
        "F114",
        "An abandoned flow",
        "it is closed",
        ("core/test_broken_providers::test_an_abandoned_flow_is_closed",),
        "no",
        "kept",
    ),
    Fault(
        "F116",
        "One asynchronous client that waits in two event loops",
        "`ConfigError`",
        ("core/test_hard_cases::test_an_event_loop_closed_during_a_wait_blocks_no_later_wait",),
    ),
    Fault(
        "F117",
        "A closed output pipe; a terminal without Unicode",
        "exits quietly; uses escapes",
        (
            "cli/test_output::test_a_closed_output_is_a_quiet_end",
            "cli/test_output::test_a_terminal_without_unicode_gets_escapes",
            "cli/test_formatting::test_a_task_is_shown_without_control_characters",
        ),
    ),
    Fault(
        "F118",
        "A key given on the command line",
        "no option accepts one",
        ("cli/test_app::test_no_option_takes_a_key",),
    ),
    Fault(
        "F119",
        "Every error class at the command line",
        "one exit code per class; one line of JSON",
        (
            "cli/test_app::test_every_error_has_an_exit_code_of_the_table",
            "cli/test_get_wait_result::test_errors_have_a_code_and_a_line_of_json",
        ),
    ),
    Fault(
        "F120",
        "An emulator whose port is in use, or whose address is not loopback",
        "a clear error; loopback addresses only",
        (
            "emulator/test_shell::test_a_port_in_use_is_named",
            "emulator/test_shell::test_only_loopback_addresses_are_accepted",
        ),
    ),
)

_DOWNLOADS: Final = (
    Fault(
        "F60",
        "A link or redirect into a private network, in any spelling; a host name that resolves there",
        "`MalformedResponse`, nothing is fetched; the client connects to the very address that was checked",
        (
            "faults/test_downloads::test_a_link_into_a_private_network_is_not_requested",
            "faults/test_downloads::test_a_host_name_is_connected_to_at_the_checked_address",
            "lifecycle/test_fetching::test_a_forbidden_url_is_refused",
            "lifecycle/test_fetching::test_odd_notations_are_always_refused",
        ),
        "no",
        "kept",
    ),
    Fault(
        "",
        "The vendor's own host redirects to another host",
        "followed, at most five times; the key and all header fields except `Accept` and the range are dropped",
        (
            "faults/test_downloads::test_the_key_is_sent_to_no_other_host",
            "faults/test_downloads::test_the_key_is_not_sent_again_after_a_foreign_hop",
            "faults/test_downloads::test_endless_redirects_are_an_error",
        ),
        "—",
        "kept",
    ),
    Fault(
        "F107",
        "A link responds with 401, 403, 404 or 410",
        "one status request gets a new link; then `PermissionDenied` or `TaskNotFound`, without a pause of the account",
        (
            "faults/test_downloads::test_a_dead_link_is_refreshed_once",
            "faults/test_downloads::test_a_link_that_stays_dead_says_how_long_links_are_valid",
        ),
        "once, with the new link",
        "kept",
    ),
    Fault(
        "",
        "A link responds with 5xx",
        "`ServerError`; the connection's rate and its retry budget are not reduced",
        (
            "faults/test_downloads::test_a_failing_file_host_does_not_slow_the_connection",
            "faults/test_refusals::test_the_text_of_a_result_comes_from_a_host_of_its_own",
            "faults/test_refusals::test_retries_of_downloads_use_up_no_retries_of_the_api",
        ),
        "yes",
        "kept",
    ),
    Fault(
        "F108",
        "A file is truncated anywhere, or shorter than stated",
        "`TruncatedResponse`; no file is saved",
        (
            "faults/test_downloads::test_a_truncated_file_is_never_saved",
            "faults/test_downloads::test_an_interrupted_download_is_resumed",
            "faults/test_downloads::test_a_host_that_cannot_resume_is_not_retried_forever",
        ),
        "yes; resumed if the host supports ranges and gave a strong ETag; the attempts count again after each megabyte",
        "kept",
    ),
    Fault(
        "",
        "Another part of the file than was requested, or 416",
        "none; the download starts again",
        ("faults/test_downloads::test_a_wrong_part_restarts_the_download",),
        "yes",
        "kept",
    ),
    Fault(
        "",
        "More bytes than the vendor stated, also when they are compressed; more than the `Content-Range` of a part",
        "`MalformedResponse`; the download stops there, and no file is saved",
        (
            "faults/test_downloads::test_a_file_of_the_wrong_length_is_never_saved",
            "faults/test_downloads::test_a_download_stops_at_the_size_that_the_vendor_stated",
            "faults/test_downloads::test_a_part_longer_than_its_range_is_malformed",
        ),
        "no",
        "kept",
    ),
    Fault(
        "",
        "A compressed body",
        "decompressed if it is gzip; `TruncatedResponse` if it is truncated",
        ("faults/test_downloads::test_a_compressed_body_is_decompressed",),
        "yes",
        "kept",
    ),
    Fault(
        "",
        "More bytes than `max_bytes`, 4 GiB by default",
        "`ResponseTooLarge`; no file is saved",
        (
            "faults/test_downloads::test_a_file_over_the_limit_is_refused",
            "cli/test_run::test_a_result_over_the_limit_is_not_saved_until_the_limit_is_raised",
        ),
        "no",
        "kept",
    ),
    Fault(
        "",
        "Fewer than 20 kB per second on average, after `request_timeout`; a stream without end",
        "`DeadlineExceeded`; the total time is bounded by the size of the file, or by an hour if that is unknown",
        (
            "faults/test_downloads::test_a_dripping_download_ends_at_the_deadline",
            "faults/test_downloads::test_time_is_earned_up_to_the_size_of_the_file",
            "faults/test_submits::test_a_dripping_document_ends_at_the_deadline",
        ),
        "while time remains",
        "kept",
    ),
    Fault(
        "F109",
        "The disk is full; a file of that name exists, or appears meanwhile; a name such as `../../x` or `CON`",
        "`OSError`, and the existing file is unchanged; a safe name inside the folder",
        (
            "faults/test_downloads::test_a_full_disk_leaves_the_existing_file",
            "faults/test_downloads::test_a_file_that_appears_meanwhile_is_not_overwritten",
            "faults/test_downloads::test_nothing_is_saved_outside_the_folder",
        ),
        "no",
        "kept",
    ),
    Fault(
        "F110",
        "A completed task without a result; a file without a link",
        "`MalformedResponse` from `result` or `download`, not from `get`",
        (
            "faults/test_downloads::test_a_missing_result_is_reported_by_result_not_by_get",
            "faults/test_downloads::test_a_file_without_a_link_is_an_error",
        ),
        "no",
        "kept",
    ),
    Fault(
        "",
        "A call is cancelled, or `on_progress` raises",
        "that error; the temporary file is deleted",
        (
            "faults/test_downloads::test_a_cancelled_download_leaves_nothing",
            "faults/test_downloads::test_an_error_in_on_progress_ends_the_download_and_is_raised",
        ),
        "no",
        "kept",
    ),
)

OTHER_FAULTS: Final[Mapping[str, tuple[Fault, ...]]] = {
    "Polling": _POLLING,
    "Submitting, uploading, cancelling": _SUBMITTING,
    "Downloads": _DOWNLOADS,
    "Settings and credentials": _SETTINGS,
    "Webhooks": _WEBHOOKS,
    "Processes, clocks, plugins": _PROCESSES,
    "Providers, command line, emulators": _CODE,
}
"""By section of the page."""

PROMISES: Final[tuple[Promise, ...]] = (
    Promise(
        "P1",
        "At most three requests for one `get`, the first included; the error says how many",
        ("faults/test_catalogue::test_get_meets_each_fault",),
    ),
    Promise(
        "P2",
        "A retry budget for each connection: retries add at most 10 % to the requests",
        (
            "core/test_throttle::test_retries_add_at_most_a_tenth_to_the_requests",
            "core/test_throttle::test_ten_threads_do_not_overspend_the_retry_budget",
            "core/test_flows::test_without_a_retry_budget_the_first_error_is_raised",
        ),
    ),
    Promise(
        "P3",
        "A failed poll delays the next one: no loop can spin",
        ("core/test_throttle::test_the_rate_is_kept_under_any_load",),
    ),
    Promise(
        "P4",
        "Full jitter on every retry; tasks that are added together are spread out",
        (
            "core/test_policy::test_pauses_are_spread_evenly_below_their_ceiling",
            "core/test_scheduler::test_tasks_added_together_are_spread",
        ),
    ),
    Promise(
        "P5",
        "Retry-After is a lower bound, and more than an hour is never slept; `1` for a minute costs ≤ 10 requests",
        (
            "core/test_flows::test_retry_after_is_a_lower_bound",
            "core/test_flows::test_a_retry_after_of_more_than_an_hour_is_never_slept",
            "core/test_throttle::test_retry_after_every_second_costs_few_requests",
        ),
    ),
    Promise(
        "P6",
        "Only safe requests are repeated: at most one submission arrives, whatever fails",
        ("faults/test_submits::test_submit_meets_each_fault", "faults/test_cancels::test_cancel_meets_each_fault"),
    ),
    Promise(
        "P7",
        "One table decides by status what is retried",
        ("core/test_policy::test_one_table_decides_what_is_retried",),
    ),
    Promise(
        "P8",
        "Durations use the monotonic clock: a jump of the wall clock causes no hang and no burst",
        ("core/test_flows::test_a_wall_clock_jump_does_no_harm",),
    ),
    Promise(
        "P9",
        "A failed poll does not fail the task, and every wait has its deadline",
        ("faults/test_catalogue::test_a_failed_poll_keeps_the_state",),
    ),
    Promise(
        "P10",
        "10,000 tasks, a minute of outage: ≤ 100 requests during it, and the rate is never exceeded after it",
        ("faults/test_outage::test_p10_ten_thousand_tasks_through_an_outage",),
    ),
    Promise(
        "P11",
        "A total deadline covers headers, body, retries and token renewal",
        (
            "core/test_transport_limits::test_the_total_deadline_holds_against_a_dripping_server",
            "core/test_flows::test_request_timeout_covers_all_attempts",
        ),
    ),
    Promise(
        "P12",
        "Credentials are never sent to another origin",
        (
            "faults/test_redirects::test_get_follows_no_redirect",
            "lifecycle/test_submit::test_a_redirected_document_is_fetched_without_the_key",
        ),
    ),
    Promise(
        "P13",
        "No log, output, error, repr, pickle or traceback with local variables shows a credential",
        (
            "faults/test_secrets::test_the_canary_watch_detects_leaks",
            "faults/test_secrets::test_an_interruption_shows_no_credential",
            "faults/test_secrets::test_the_query_of_a_url_is_in_no_log",
        ),
    ),
    Promise(
        "P14",
        "Responses are limited while they are read; memory grows by at most `max_body` + 8 MiB",
        ("faults/test_sizes::test_memory_does_not_grow_with_the_response",),
    ),
    Promise(
        "P15",
        "A response truncated at any byte is either the complete response or a retryable error",
        (
            "faults/test_truncation::test_a_response_truncated_at_every_byte",
            "faults/test_truncation::test_other_framings_truncated_at_every_byte",
        ),
    ),
    Promise(
        "P16",
        "TLS is on and never silently bypassed",
        (
            "faults/test_connections::test_ca_bundle_takes_precedence_over_the_environment",
            "core/test_config::test_an_unsafe_url_is_refused",
        ),
    ),
    Promise(
        "P17",
        "Stored data contains no secret: refs are plain text, clients and settings refuse to be pickled",
        (
            "core/test_client::test_a_client_refuses_to_be_pickled_and_shows_no_key",
            "core/test_models::test_a_ref_pickles_as_a_ref",
        ),
    ),
    Promise(
        "P18",
        "A vendor's links are fetched only on request, and never into a private network",
        (
            "lifecycle/test_fetching::test_a_forbidden_url_is_refused",
            "lifecycle/test_fetching::test_a_host_name_that_resolves_to_this_machine_is_refused",
        ),
    ),
    Promise(
        "P19",
        "Webhooks are verified by their raw bytes before anything is parsed; anything else is `WebhookRejected`",
        (
            "webhooks/test_refusals::test_an_unverified_body_is_never_parsed",
            "webhooks/test_fuzz::test_unsigned_deliveries_pass_only_with_the_secret_in_the_url",
        ),
    ),
    Promise(
        "P20",
        "A signed time may differ by 300 s either way",
        ("webhooks/test_fuzz::test_a_signature_is_fresh_for_five_minutes_before_and_after",),
    ),
    Promise(
        "P21",
        "Repeated and late deliveries do no harm",
        (
            "webhooks/test_ingest::test_the_same_delivery_a_hundred_times_from_eight_threads_is_one_event",
            "webhooks/test_ingest::test_a_late_state_is_reported_but_not_applied",
        ),
    ),
    Promise(
        "P22",
        "A webhook without a signed time is only a hint: the API is asked for the status",
        ("webhooks/test_ingest::test_a_forged_end_causes_one_status_request_and_changes_nothing",),
    ),
    Promise(
        "P23",
        "Several secrets at once, for rotation without a gap",
        ("webhooks/test_refusals::test_old_and_new_secret_are_accepted_until_one_is_removed",),
    ),
    Promise(
        "P24", "A receiver without a secret is an error", ("webhooks/test_refusals::test_a_missing_secret_is_an_error",)
    ),
    Promise(
        "P25",
        "Deliveries are limited in size; slow senders are left to the web server",
        ("webhooks/test_refusals::test_each_refusal_has_its_http_status",),
    ),
    Promise(
        "P26",
        "A submission with an unknown outcome raises an error with what is needed to find it",
        (
            "lifecycle/test_uncertain::test_an_uncertain_submission_is_sent_once_and_raises_submit_uncertain",
            "lifecycle/test_uncertain::test_an_uncertain_submission_is_recovered",
            "lifecycle/test_groups::test_a_submission_in_doubt_goes_to_no_other",
            "lifecycle/test_groups::test_a_document_that_is_refused_after_its_job_goes_to_no_other",
        ),
    ),
    Promise(
        "P27",
        "An unknown status word neither crashes nor ends a wait",
        (
            "providers/test_mapping_tables::test_an_unknown_word_is_processing",
            "core/test_flows::test_an_unknown_word_is_logged_once_and_is_processing",
            "core/test_states::test_a_mapped_word_ends_a_wait",
        ),
    ),
    Promise(
        "P28",
        "Plugins fail visibly and cannot replace another provider",
        (
            "core/test_registry::test_a_broken_plugin_disables_itself_and_says_why",
            "core/test_registry::test_a_third_party_that_takes_a_built_in_name_is_disabled_and_never_imported",
        ),
    ),
    Promise(
        "P29",
        "Configuration errors name the key and the rule, never the value",
        (
            "core/test_config::test_no_config_error_shows_a_value",
            "faults/test_secrets::test_the_environment_is_not_shown_with_an_error",
        ),
    ),
    Promise(
        "P30",
        "Threads and forked processes get their own responses",
        (
            "faults/test_connections::test_sixteen_threads_get_their_own_responses",
            "faults/test_connections::test_children_of_a_fork_get_their_own_responses",
            "faults/test_forks::test_no_lock_is_inherited",
        ),
    ),
    Promise(
        "P31",
        "Both clients behave the same",
        (
            "faults/test_catalogue::test_get_meets_each_fault",
            "faults/test_connections::test_both_clients_send_the_same",
        ),
    ),
    Promise(
        "P32",
        "A downloaded file is saved completely or not at all, and never outside its folder",
        (
            "faults/test_downloads::test_a_truncated_file_is_never_saved",
            "faults/test_downloads::test_nothing_is_saved_outside_the_folder",
        ),
    ),
    Promise(
        "P33",
        "What a store has committed survives processes that are killed",
        (
            "store/test_owners::test_owners_that_are_killed_lose_nothing_and_double_nothing",
            "store/test_postgresql::test_a_database_that_was_killed_loses_and_doubles_nothing",
        ),
    ),
    Promise(
        "P34",
        "Events of a store survive a restart, and are delivered at least once",
        (
            "store/test_relay::test_a_relay_that_is_killed_between_handling_and_storing_delivers_again_under_the_same_key",
            "store/test_store::test_each_consumer_gets_each_event_until_it_acknowledges",
        ),
    ),
)
"""The promises, and the tests that prove them."""
