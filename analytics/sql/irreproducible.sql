-- Equal input and model, yet another decision of the tree: faults of reproducibility.
-- group routing
WITH settled AS (
    SELECT *, concat_ws(' ', tier, route, arguments) AS decided, features::VARCHAR AS input
    FROM decisions
    -- What a guard sends up is decided by the guard, not by the features.
    WHERE escalation IS DISTINCT FROM 'guard'
), grouped AS (
    SELECT recipient, mode, model_id, control_id, max_error, input, count(*) AS decisions,
        list_sort(list(DISTINCT decided)) AS decided,
        list(event_id ORDER BY occurred_at, event_id)[1:20] AS decision_ids,
        any_value(model_version) AS model_version
    FROM settled
    GROUP BY recipient, mode, model_id, control_id, max_error, input
    -- The tiers above the tree look at words too, so only what it settled must come out again.
    HAVING bool_or(tier = 'dtr') AND count(DISTINCT decided) > 1
)
SELECT recipient, mode, model_version, decisions, decided, input AS features, decision_ids
FROM grouped
ORDER BY decisions DESC, decision_ids
