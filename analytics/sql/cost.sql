-- What the language models cost: calls, tokens and dollars by model, conversation, sender or day.
-- group cost
-- param by: one of model, conversation, sender, day = model
SELECT
    CASE $by
        WHEN 'model' THEN coalesce(model, 'unknown')
        WHEN 'conversation' THEN conversation_id
        WHEN 'sender' THEN sender
        WHEN 'day' THEN strftime(occurred_at, '%Y-%m-%d')
    END AS spent_on,
    count(*) AS calls, sum(tokens_in)::BIGINT AS tokens_in, sum(tokens_out)::BIGINT AS tokens_out,
    fsum(cost_usd) AS cost_usd, count(*) FILTER (cost_usd IS NULL) AS calls_of_unknown_cost,
    favg(latency_ms) AS mean_latency_ms
FROM llm_calls
GROUP BY spent_on
ORDER BY cost_usd DESC NULLS LAST, calls DESC, spent_on
