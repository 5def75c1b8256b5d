-- Why turns went up to the language model, by mode, recipient and promise, the commonest first.
-- group routing
SELECT mode, recipient, coalesce(escalation, 'unknown') AS escalation,
    max_error AS promised_error, count(*) AS decisions,
    round(count(*) / sum(count(*)) OVER (PARTITION BY mode, recipient), 4) AS share,
    min(reason) AS for_example
FROM decisions
WHERE tier = 'imperator'
GROUP BY mode, recipient, escalation, max_error
ORDER BY mode, decisions DESC, recipient, escalation, promised_error
