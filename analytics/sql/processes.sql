-- How agents work, mined from conversations that ended well: the steps of each one's process.
-- group learning
WITH newest AS (
    SELECT mad AS agent, version, parameters
    FROM models
    WHERE component = 'process'
    QUALIFY row_number() OVER (PARTITION BY mad ORDER BY appended_at DESC, "offset" DESC) = 1
), steps AS (
    SELECT agent, version, json_array_length(parameters, '$.conversations') AS support,
        unnest(json_extract(parameters, '$.steps[*]')) AS step
    FROM newest
)
-- A process of fewer than 20 conversations may not be conducted.
SELECT agent, step->>'key' AS step, step->>'actor' AS actor, step->>'what' AS what,
    (step->>'conversations')::BIGINT AS conversations, support, support >= 20 AS ready,
    (step->>'count')::BIGINT AS times, round((step->>'confidence')::DOUBLE, 4) AS confidence,
    (step->>'needs_llm')::BOOLEAN AS needs_llm, step->'precondition' AS precondition,
    step->'effect' AS effect, step->'slots' AS slots, version
FROM steps
ORDER BY agent, conversations DESC, step->>'key'
