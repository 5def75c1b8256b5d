-- What the cheap tiers save: model calls, tokens and dollars, by what the log's calls took.
-- group cost
-- param usd_in: number = any
-- param usd_out: number = any
WITH priced AS (
    -- Dollars: at the price given for all models, else at the price list's for the model and the
    -- time of the call, else what the call is known to have cost.
    SELECT c.model, tokens_in, tokens_out, coalesce(
        (tokens_in * $usd_in::DOUBLE + tokens_out * $usd_out::DOUBLE) / 1e6,
        (tokens_in * p.usd_per_million_in + tokens_out * p.usd_per_million_out) / 1e6,
        cost_usd
    ) AS usd
    FROM llm_calls c ASOF LEFT JOIN prices p ON p.model = c.model AND p.since <= c.occurred_at
), took AS (
    SELECT favg(tokens_in) AS tokens_in, favg(tokens_out) AS tokens_out, favg(usd) AS usd,
        coalesce(count(usd) / nullif(count(*), 0), 0) AS known,
        string_agg(DISTINCT coalesce(model, 'unknown'), ', ' ORDER BY coalesce(model, 'unknown'))
            FILTER (usd IS NULL) AS models_of_unknown_cost
    FROM priced
), settled AS (
    SELECT mode, count(*) AS decisions, count(*) FILTER (tier <> 'imperator') AS calls_avoided
    FROM decisions
    GROUP BY mode
)
-- What is unknown stays unknown: the calls avoided are divided as the calls made are, and those of
-- unknown cost are counted, not guessed. Calls that were avoided wrongly cost more than they saved.
SELECT mode, decisions, calls_avoided, round(calls_avoided / decisions, 4) AS share,
    round(calls_avoided * tokens_in)::BIGINT AS tokens_in_avoided,
    round(calls_avoided * tokens_out)::BIGINT AS tokens_out_avoided,
    round(calls_avoided * known * usd, 2) AS usd_avoided,
    calls_avoided - round(calls_avoided * known)::BIGINT AS calls_of_unknown_cost,
    models_of_unknown_cost
FROM settled, took
ORDER BY mode
