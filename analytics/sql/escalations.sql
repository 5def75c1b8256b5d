-- Why turns went up to the language model, by mode and recipient, the commonest first.
SELECT mode, recipient, coalesce(escalation, 'unknown') AS escalation, count(*) AS decisions,
    round(count(*) / sum(count(*)) OVER (PARTITION BY mode, recipient), 4) AS share,
    min(reason) AS for_example
FROM decisions
WHERE tier = 'imperator'
GROUP BY mode, recipient, escalation
ORDER BY mode, decisions DESC, recipient, escalation
