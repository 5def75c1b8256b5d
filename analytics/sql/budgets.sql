-- What is used of each budget that was ordered, and which agents are near it or over it.
-- group cost
-- param near: number = 0.8
WITH ordered AS (
    SELECT target, name, value, expires_at
    -- What is no budget changes nothing: the guards pass over it too.
    FROM control WHERE command = 'budget' AND (value IS NULL OR json_valid(value))
    QUALIFY row_number() OVER (PARTITION BY target, name ORDER BY "offset" DESC) = 1
), used AS (
    -- Times are the log's, as the guards count them; of a call of unknown cost nothing is known.
    SELECT sender AS agent, appended_at AS used_at, 1 AS acts, 0 AS usd FROM tool_calls
    UNION ALL
    SELECT sender, appended_at, 0, cost_usd FROM llm_calls WHERE cost_usd IS NOT NULL
), seen AS (
    -- The log's own time: what was used long before is not used now.
    SELECT max(seen_at) AS newest FROM (
        SELECT used_at AS seen_at FROM used
        UNION ALL SELECT appended_at FROM turns
        UNION ALL SELECT appended_at FROM control
    )
), agents AS (
    SELECT agent FROM used
    UNION SELECT target FROM ordered WHERE target <> 'all'
), budgets AS (
    SELECT u.agent, o.name, json_extract_string(o.value, '$.risk') AS risk,
        CASE WHEN json_extract_string(o.value, '$.acts') IS NULL THEN 'usd' ELSE 'acts' END AS unit,
        try_cast(coalesce(
            json_extract_string(o.value, '$.acts'), json_extract_string(o.value, '$.cost_usd')
        ) AS DOUBLE) AS allowed,
        coalesce(try_cast(json_extract_string(o.value, '$.window_s') AS BIGINT), 86400) AS window_s
    FROM agents u JOIN ordered o ON o.target IN (u.agent, 'all')
    WHERE o.value IS NOT NULL
        AND (o.expires_at IS NULL OR o.expires_at > (SELECT newest FROM seen))
    -- An agent's own budget stands in the place of one of that name for all.
    QUALIFY row_number() OVER (
        PARTITION BY u.agent, coalesce(o.name, '') ORDER BY o.target = 'all'
    ) = 1
), running AS (
    SELECT b.*, u.used_at, fsum(CASE unit WHEN 'acts' THEN acts ELSE usd END) OVER (
        PARTITION BY b.agent, b.name, b.unit, b.allowed ORDER BY u.used_at
        RANGE BETWEEN to_seconds(b.window_s) PRECEDING AND CURRENT ROW
    ) AS in_window, CASE unit WHEN 'acts' THEN acts ELSE usd END AS amount
    FROM budgets b LEFT JOIN used u ON u.agent = b.agent
)
-- Which risk an act was of stands in the file of agents and not in the log: all are counted.
SELECT agent, name AS budget, allowed, unit, window_s, risk,
    coalesce(fsum(amount) FILTER (used_at > newest - to_seconds(window_s)), 0) AS used_now,
    round(used_now / nullif(allowed, 0), 4) AS share_now,
    coalesce(max(in_window), 0) AS most_in_a_window,
    CASE WHEN used_now > allowed THEN 'over' WHEN used_now >= $near * allowed THEN 'near'
        ELSE 'within' END AS state
FROM running, seen
GROUP BY agent, name, allowed, unit, window_s, risk
ORDER BY used_now / nullif(allowed, 0) DESC NULLS FIRST, agent, budget, allowed, unit
