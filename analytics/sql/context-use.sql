-- What each agent's contexts cost in tokens, and how many of them any answer used.
-- group learning
-- waits for ContextBuilt events: what was used of each is told when its pieces have fields
WITH contexts AS (
    SELECT event_id, sender AS agent FROM events WHERE kind = 'ContextBuilt'
), calls AS (
    SELECT causation_id, count(*) AS calls, count(answer_id) AS answers,
        sum(tokens_in)::BIGINT AS tokens_in
    FROM llm_calls GROUP BY causation_id
)
SELECT agent, count(*) AS contexts, count(calls) AS shown_to_a_model,
    count(*) FILTER (answers > 0) AS answered, sum(tokens_in)::BIGINT AS tokens_in,
    sum(tokens_in) FILTER (coalesce(answers, 0) = 0)::BIGINT AS tokens_wasted
FROM contexts LEFT JOIN calls ON calls.causation_id = contexts.event_id
GROUP BY agent
ORDER BY tokens_in DESC NULLS LAST, agent
