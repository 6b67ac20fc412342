"""Bad input, tried on purpose: where each kind of it is tried, and a check that this list is true.

Each must give a clear error with what to do, and change nothing by halves. What has no other home is tried
in this folder.
"""

from __future__ import annotations

import pytest
from tests.house.repository import ROOT

TRIED = {
    "wrong column": [
        "bad_input/test_rows.py::test_bad_rows_are_refused_at_every_door_and_change_nothing",
        "data/test_datasets.py::test_wrong_columns_refuse_the_append_always",
        "serving/test_plain_json.py::test_what_cannot_be_predicted_is_refused_with_the_reason",
    ],
    "missing column": [
        "bad_input/test_rows.py::test_bad_rows_are_refused_at_every_door_and_change_nothing",
        "data/test_contracts.py::test_all_that_is_wrong_with_the_columns_is_told_at_once",
        "models/test_encoding.py::test_a_missing_column_is_named_with_the_one_that_was_meant",
    ],
    "wrong type": [
        "bad_input/test_rows.py::test_bad_rows_are_refused_at_every_door_and_change_nothing",
        "models/test_encoding.py::test_a_refusal_names_column_row_and_value",
    ],
    "NaN where it is refused": [
        "bad_input/test_rows.py::test_bad_rows_are_refused_at_every_door_and_change_nothing",
        "serving/test_plain_json.py::test_what_is_not_json_is_refused",
    ],
    "an empty frame": [
        "bad_input/test_rows.py::test_bad_rows_are_refused_at_every_door_and_change_nothing",
        "data/test_datasets.py::test_an_empty_frame_and_an_empty_key_are_refused",
    ],
    "a JSON body of 10 MB": [
        "serving/test_plain_json.py::test_a_body_of_10_megabytes_is_refused_and_the_connection_goes_on",
        "server/test_http.py::test_a_body_over_the_limit_is_413",
    ],
    "invalid JSON": [
        "bad_input/test_requests.py::test_no_request_makes_the_server_fail",
        "serving/test_plain_json.py::test_what_is_not_json_is_refused",
        "serving/test_plain_json.py::test_no_json_makes_the_gateway_fail",
    ],
    "an unknown endpoint": [
        "serving/test_plain_json.py::test_wrong_addresses_methods_and_headers_are_refused",
        "serving/test_open_inference.py::test_unknown_models_and_versions_and_methods_are_told",
    ],
    "an unknown prediction id in feedback": [
        "serving/test_plain_json.py::test_feedback_that_names_no_prediction_of_the_endpoint_is_refused_whole",
        "serving/test_labels.py::test_a_forged_id_is_told_and_no_label_of_its_file_kept",
    ],
    "a label sent twice": [
        "monitoring/test_outcomes.py::test_the_same_label_twice_counts_once",
        "serving/test_shipping.py::test_a_label_before_its_prediction_and_a_label_sent_twice_are_one_label",
    ],
    "a label before its prediction is shipped": [
        "serving/test_gateway.py::test_feedback_joins_its_prediction_whether_it_was_shipped_or_not",
    ],
    "a loop that names an unknown dataset": [
        "bad_input/test_projects.py::test_a_loop_that_names_an_unknown_dataset_starts_nothing",
        "loop/test_loops.py::test_an_unknown_dataset_is_named_and_nothing_is_made",
    ],
    "a step that raises, hangs or is killed": [
        "bad_input/test_steps.py::test_a_step_that_fails_ends_its_cycle_with_the_reason_and_nothing_else",
        "pipelines/test_run.py::test_a_failed_step_says_which_and_why",
        "pipelines/test_run.py::test_a_step_that_hangs_is_killed",
        "pipelines/test_worker.py::test_a_step_that_is_killed_fails_its_pipeline_and_nothing_else",
    ],
    "a full disk while logging predictions": [
        "serving/test_gateway.py::test_a_full_disk_refuses_what_cannot_be_logged_and_says_so",
        "serving/test_gateway.py::test_a_full_disk_costs_no_answer_where_dropping_is_chosen",
        "serving/test_segments.py::test_nothing_stays_half_written_on_a_full_disk_and_it_goes_on_when_there_is_room",
    ],
    "a workspace of a newer version": [
        "bad_input/test_projects.py::test_a_workspace_of_a_newer_version_is_refused_by_commands_and_roles",
    ],
    "a second `trimtab up` on one folder": [
        "server/test_supervisor.py::test_a_second_supervisor_on_one_folder_is_refused",
    ],
    "a clock that goes back": [
        "bad_input/test_clocks.py::test_a_dead_holders_lease_is_taken_over",
        "ground/test_clock.py::test_the_system_clock_stands_still_while_the_machine_goes_back",
        "store/test_replay.py::test_time_that_would_go_back_is_refused_and_stays",
        "loop/test_lockstep.py::test_event_time_does_not_go_back",
    ],
    "names and values that no store can hold": [
        "bad_input/test_requests.py::test_no_request_makes_the_server_fail",
        "bad_input/test_requests.py::test_no_name_makes_the_gateway_fail_or_its_log_stand_still",
        "store/test_database.py::test_a_text_that_no_store_can_hold_is_refused_whole",
    ],
}


@pytest.mark.parametrize("what", TRIED)
def test_every_kind_of_bad_input_is_tried_where_this_list_says(what: str) -> None:
    for place in TRIED[what]:
        path, name = place.split("::")
        assert f"def {name}(" in (ROOT / "tests" / path).read_text(), place
