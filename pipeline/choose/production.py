"""What may go to production."""

from pipeline.choose.decision import Decision
from pipeline.errors import ConfigError, StoreError
from pipeline.store import Store
from pipeline.vocabulary import Evidence


def check_production(decision: Decision, store: Store, *, allow_random_weights: bool) -> None:
    """See that a decision may go to production, and that the evidence behind its rows is there.

    Raises:
        ConfigError: If it rests on random weights that were not allowed, on no server that ran, or on a row whose trace
            is missing or another.
    """
    weights, evidence = decision.conditions["weights"], decision.conditions["evidence"]
    if evidence not in {Evidence.MEASURED, Evidence.ESTIMATED}:
        raise ConfigError(f"evidence={evidence}: no server ran, so there is nothing to ship; measure it: tpw sweep")
    if weights == "random" and not allow_random_weights:
        raise ConfigError(
            "weights=random: says nothing of the trained model, so it is not chosen for production; measure the "
            "checkpoint (model.path=DIR), or add --allow-random-weights to try the steps"
        )
    for row in (
        row for study in decision.studies for row in store.rows(study) if row.row_id in decision.winner.row_ids
    ):
        try:
            store.read_trace(row)
        except StoreError as error:
            raise ConfigError(f"{error}; restore it: a decision must be open to `tpw verify`") from error
