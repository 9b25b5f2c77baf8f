"""The checks of a day of monitoring, by name: sentences that are true when passed."""

CHECKS = {
    "features_have_not_drifted": "No column is distributed otherwise than where the deployed version was judged.",
    "scores_have_not_drifted": "The scores are distributed as where the deployed version was judged.",
    "coverage_and_nulls_hold": "As many rows as there have an entity that each view knows, and a value in each column.",
    "traffic_is_usual": "There are not many times more or fewer rows than on a usual day.",
    "estimated_performance_holds": "The metric, estimated before there are labels, is what it was on the validation rows.",
    "labels_are_as_frequent": "Each class is as frequent among the newest rows with labels as on the validation rows.",
    "realised_performance_holds": "The metric on the newest rows with labels is what it was on the validation rows.",
    "no_slice_performs_worse": "The same for each value of the columns in monitoring.slices.",
}
