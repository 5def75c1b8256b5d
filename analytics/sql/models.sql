-- Which models were published, what they learned from, and how many decisions name each.
SELECT m.occurred_at, m.component, m.mad, m.version, m.event_id AS model_id,
    m.metrics, m.code_version, count(d.event_id) AS decisions,
    count(d.event_id) FILTER (d.tier <> 'imperator') AS settled
FROM models m LEFT JOIN decisions d ON d.model_id = m.event_id
GROUP BY ALL
ORDER BY min(m.appended_at), m.version
