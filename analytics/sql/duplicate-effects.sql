-- Effects that happened more than once: one action done again, with success, on the same thing.
-- group faults
-- param across: boolean = true
-- param reads: boolean = false
WITH done AS (
    SELECT call.conversation_id, call.occurred_at, call.action, call.arguments,
        call.event_id,
        try_cast(try_cast(call.arguments AS JSON) AS MAP(VARCHAR, JSON)) AS given
    FROM tool_calls AS call
    WHERE EXISTS (
        SELECT 1 FROM tool_results AS result WHERE result.call_id = call.event_id AND result.ok
    )
    -- Looking a thing up twice does no harm.
    AND ($reads OR NOT regexp_matches(lower(call.action),
        '^(get|list|search|find|look|lookup|read|fetch|check|show|view|query|describe|count'
        '|calculate|think|validate|verify|health|ping)(_|-|$)'))
), named AS (
    SELECT *,
        list_sort([entry FOR entry IN map_entries(given) IF regexp_matches(lower(entry.key),
            '^(order|refund|payment|invoice|charge|transaction)(_?(id|number|no))?$')
        ]) AS ids,
        list_sort(map_entries(given)) AS sorted,
        regexp_matches(lower(action), 'refund|pay|charge|credit|debit|compensat|cancel') AS spends
    FROM done
), keyed AS (
    SELECT *,
        -- Money that goes out twice for one order is suspect even where the amounts differ.
        CASE WHEN spends AND len(ids) > 0 THEN ids ELSE sorted END AS thing,
        coalesce(given['amount'], given['amount_usd'], given['amount_eur'])::VARCHAR AS amount
    FROM named
), grouped AS (
    SELECT action,
        coalesce(
            array_to_string(
                [entry.key || '=' || trim(entry.value::VARCHAR, '"') FOR entry IN thing], ', '),
            trim(arguments)
        ) AS same,
        CASE WHEN $across THEN '' ELSE conversation_id END AS world,
        count(*) AS times, count(DISTINCT conversation_id) AS conversations,
        sum(try_cast(trim(amount, '"') AS DOUBLE)) - arg_min(
            coalesce(try_cast(trim(amount, '"') AS DOUBLE), 0),
            (occurred_at, event_id)) AS amount_repeated,
        min(occurred_at) AS first_at, max(occurred_at) AS last_at,
        list_sort(list(DISTINCT conversation_id))[1:20] AS in_conversations,
        list(event_id ORDER BY occurred_at, event_id)[1:20] AS events
    FROM keyed
    GROUP BY action, same, world
    HAVING count(*) > 1
)
SELECT action, same, times, amount_repeated, first_at, in_conversations, conversations, last_at,
    events
FROM grouped
-- More times than conversations: within one of them it happened twice, the surest sign.
ORDER BY times > conversations DESC, times DESC, action, same, first_at
