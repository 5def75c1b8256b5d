-- What the language model was asked again and again, with the same answer: promoted or demoted.
-- group learning
-- param times: integer = 5
WITH newest AS (
    SELECT about_id, judged_by, arg_max(result, (appended_at, partition, "offset")) AS result,
        arg_max(extra->>'withdrawn' IS NOT NULL, (appended_at, partition, "offset")) AS withdrawn
    FROM outcomes
    WHERE about = 'decision'
    GROUP BY about_id, judged_by
), failed AS (
    -- That an audit disagrees is no failure of what it would have done: its answer is counted.
    SELECT DISTINCT about_id FROM newest
    WHERE result = 'failure' AND NOT withdrawn AND judged_by <> 'audit'
), answers AS (
    SELECT causation_id AS decision_id, extra->>'route' AS route, extra->>'arguments' AS arguments
    FROM llm_calls
    WHERE parameters->>'purpose' IS NOT NULL
    -- Of two workers at once the first call counts, though both were paid.
    QUALIFY row_number() OVER (
        PARTITION BY event_id ORDER BY appended_at, partition, "offset"
    ) = 1 AND route IS NOT NULL
), observed AS (
    SELECT d.recipient, d.occurred_at, d.event_id, a.route, a.arguments,
        f.about_id IS NOT NULL AS failed,
        CASE WHEN a.route = 'action:' || (features->>'verb') THEN 'action:{verb}'
            WHEN a.route IN ('ack', 'health') THEN a.route
            WHEN regexp_full_match(a.route, 'action:[A-Za-z_][A-Za-z0-9_.-]{0,127}')
                AND coalesce(a.arguments, '{}') = '{}' THEN a.route
        END AS settles,
        -- The features that the memo tells forms apart by.
        json_object(
            'command', features->>'command', 'verb', features->>'verb',
            'shorthand', features->>'shorthand', 'verb_registered', features->>'verb_registered',
            'mentions', features->>'mentions', 'mentioned', features->>'mentioned',
            'tags', features->>'tags', 'ack_tag', features->>'ack_tag',
            'error_tag', features->>'error_tag', 'intent', features->>'intent',
            'recipients', features->>'recipients', 'recipient', features->>'recipient',
            'sender_kind', features->>'sender_kind', 'same_sender', features->>'same_sender',
            'last_ack', features->>'last_ack', 'last_intent', features->>'last_intent',
            'last_tool_ok', features->>'last_tool_ok', 'last_action', features->>'last_action'
        )::VARCHAR AS form
    FROM decisions d
    LEFT JOIN answers a ON a.decision_id = d.event_id
    LEFT JOIN failed f ON f.about_id = d.event_id
    WHERE d.mode = 'live' AND (a.decision_id IS NOT NULL OR f.about_id IS NOT NULL)
), keyed AS (
    SELECT *, coalesce(settles, route || ' ' || coalesce(arguments, '')) AS answer FROM observed
), counted AS (
    SELECT *, CASE WHEN failed THEN NULL ELSE answer END AS good,
        row_number() OVER w AS n,
        lag(CASE WHEN failed THEN NULL ELSE answer END) OVER w AS before
    FROM keyed
    WINDOW w AS (PARTITION BY recipient, form ORDER BY occurred_at, event_id)
), runs AS (
    SELECT *, sum((good IS NULL OR before IS NULL OR good <> before)::INTEGER)
        OVER (PARTITION BY recipient, form ORDER BY n) AS run
    FROM counted
), run_lengths AS (
    SELECT recipient, form, run, any_value(good) AS answer, count(good) AS same,
        any_value(settles) IS NOT NULL AND count(good) >= $times AS promotes,
        count(answer) AS asked, count(*) FILTER (failed) AS failures,
        max((occurred_at, event_id)) AS last
    FROM runs
    GROUP BY recipient, form, run
), forms AS (
    SELECT recipient, form, sum(asked)::BIGINT AS asked, arg_max(same, run) AS same,
        sum(failures)::BIGINT AS failures, arg_max(answer, run) AS answer,
        arg_max(promotes, run) AS promoted, bool_or(promotes) AS ever,
        max(last)[2] AS last_decision_id
    FROM run_lengths
    GROUP BY recipient, form
)
SELECT recipient, answer, asked, same, failures,
    CASE WHEN promoted THEN 'promoted' WHEN ever THEN 'demoted' ELSE 'asked' END AS state,
    form, last_decision_id
FROM forms
ORDER BY asked DESC, recipient, form
