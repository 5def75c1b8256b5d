-- What the cheap tiers save: model calls, tokens and dollars, by what the log's calls took.
-- param usd_in: number = nan
-- param usd_out: number = nan
WITH took AS (
    -- Dollars a million tokens: as given, else what the calls with a known cost came to.
    SELECT avg(tokens_in) AS tokens_in, avg(tokens_out) AS tokens_out,
        coalesce(
            (avg(tokens_in) * CASE WHEN NOT isnan($usd_in::DOUBLE) THEN $usd_in END
                + avg(tokens_out) * CASE WHEN NOT isnan($usd_out::DOUBLE) THEN $usd_out END) / 1e6,
            avg(cost_usd)
        ) AS usd
    FROM llm_calls
), settled AS (
    SELECT mode, count(*) AS decisions, count(*) FILTER (tier <> 'imperator') AS calls_avoided
    FROM decisions
    GROUP BY mode
)
-- What is unknown stays unknown; calls that were avoided wrongly cost more than they saved.
SELECT mode, decisions, calls_avoided, round(calls_avoided / decisions, 4) AS share,
    round(calls_avoided * tokens_in)::BIGINT AS tokens_in_avoided,
    round(calls_avoided * tokens_out)::BIGINT AS tokens_out_avoided,
    round(calls_avoided * usd, 2) AS usd_avoided
FROM settled, took
ORDER BY mode
