-- Which instances of processes run, are blocked, overdue or handed over, and at which step.
-- group agents
-- param all: boolean = false
WITH moved AS (
    SELECT instance_id, mad AS agent, process, conversation_id, min(occurred_at) AS began_at,
        max(occurred_at) AS moved_at, arg_max(state, "offset") AS state,
        arg_max(step IS NULL, "offset") AS of_all, arg_max(reason, "offset") AS reason,
        arg_max(step, "offset") FILTER (state = 'step') AS step,
        arg_max(action, "offset") FILTER (state = 'step') AS action,
        -- A deadline is the newest step's, where that has one.
        arg_max({'at': deadline}, "offset") FILTER (state = 'step') AS due
    FROM process_steps
    GROUP BY instance_id, mad, process, conversation_id
), seen AS (
    -- The log's own time: the newest that anybody said or did something.
    SELECT greatest((SELECT max(occurred_at) FROM turns), (SELECT max(moved_at) FROM moved))
        AS newest
), told AS (
    SELECT *, CASE
        WHEN state = 'completed' OR (state = 'compensated' AND of_all) THEN 'ended'
        WHEN state IN ('escalated', 'timed-out') THEN 'handed over'
        WHEN state = 'paused' THEN state
        WHEN state IN ('step', 'blocked', 'resumed') AND due.at < newest THEN 'overdue'
        WHEN state = 'blocked' THEN state
        ELSE 'running' END AS status
    FROM moved, seen
)
SELECT agent, process, conversation_id, status, step, action, due.at AS deadline,
    reason, state AS last_move, moved_at, began_at, instance_id
FROM told
WHERE $all OR status <> 'ended'
ORDER BY status, moved_at, instance_id
