-- What holds for an agent: orders in force, the model it is decided by, its processes; with --as-of, then.
-- group agents
-- param agent: text
WITH seen AS (
    -- The log's own time, so that the answer as of a position never changes.
    SELECT max(seen_at) AS newest FROM (
        SELECT appended_at AS seen_at FROM control
        UNION ALL SELECT appended_at FROM turns
        UNION ALL SELECT appended_at FROM decisions
    )
), orders AS (
    -- The newest word of each kind counts; what ended by its own time is not in force.
    SELECT *
    FROM control
    WHERE target IN ($agent, 'all') AND command IN ('stop', 'start', 'override', 'flag', 'budget')
), standing AS (
    SELECT *
    FROM orders
    QUALIFY row_number() OVER (
        PARTITION BY target, CASE command WHEN 'start' THEN 'stop' ELSE command END, tier, name
        ORDER BY "offset" DESC
    ) = 1 AND (expires_at IS NULL OR expires_at > (SELECT newest FROM seen))
), served AS (
    SELECT mode, tier, model_version, model_id, occurred_at,
        min(occurred_at) OVER (PARTITION BY mode, tier, model_id) AS since
    FROM decisions WHERE recipient = $agent
    QUALIFY row_number() OVER (
        PARTITION BY mode, tier ORDER BY occurred_at DESC, event_id DESC
    ) = 1
), moved AS (
    SELECT process, conversation_id, state, step, occurred_at, instance_id
    FROM process_steps WHERE mad = $agent
    QUALIFY row_number() OVER (PARTITION BY instance_id ORDER BY "offset" DESC) = 1
), told AS (
    SELECT 'order' AS what, concat_ws(' ', command, name, tier) AS name,
        coalesce(value, 'until it is taken back') AS value, occurred_at AS since, event_id
    FROM standing
    WHERE command = 'stop' OR (command <> 'start' AND value IS NOT NULL)
    UNION ALL
    SELECT 'decided by', mode || ' ' || tier, model_version, since, model_id FROM served
    UNION ALL
    SELECT 'process', process || ' in ' || conversation_id,
        state || coalesce(' at step ' || step, ''), occurred_at, instance_id
    FROM moved WHERE state <> 'completed' AND NOT (state = 'compensated' AND step IS NULL)
)
SELECT what, name, value, since, event_id
FROM told
ORDER BY what, name, since, event_id
