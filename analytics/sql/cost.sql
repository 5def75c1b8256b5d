-- What the language models cost: calls, tokens and dollars by model, conversation, sender or day.
-- group cost
-- param by: one of model, conversation, sender, day = model
WITH called AS (
    SELECT c.*, CASE $by
            WHEN 'model' THEN coalesce(c.model, 'unknown')
            WHEN 'conversation' THEN conversation_id
            WHEN 'sender' THEN sender
            WHEN 'day' THEN strftime(occurred_at, '%Y-%m-%d')
        END AS spent_on,
        (tokens_in * p.usd_per_million_in + tokens_out * p.usd_per_million_out) / 1e6 AS listed_usd
    FROM llm_calls c ASOF LEFT JOIN prices p ON p.model = c.model AND p.since <= c.occurred_at
)
-- Beside what is known of each call, what the price list makes of its tokens.
SELECT spent_on,
    count(*) AS calls, sum(tokens_in)::BIGINT AS tokens_in, sum(tokens_out)::BIGINT AS tokens_out,
    fsum(cost_usd) AS cost_usd, count(*) FILTER (cost_usd IS NULL) AS calls_of_unknown_cost,
    fsum(listed_usd) AS usd_by_price_list, favg(latency_ms) AS mean_latency_ms
FROM called
GROUP BY spent_on
ORDER BY cost_usd DESC NULLS LAST, calls DESC, spent_on
