-- Which tier settled the turns, with its share, confidence and speed; each mode by itself.
SELECT mode, tier, settled_by, count(*) AS decisions,
    round(count(*) / sum(count(*)) OVER (PARTITION BY mode), 4) AS share,
    avg(confidence) AS mean_confidence, avg(max_error) AS mean_promised_error,
    count(*) FILTER (audited) AS audited,
    quantile_cont(duration_us, 0.5) AS p50_us, quantile_cont(duration_us, 0.99) AS p99_us
FROM decisions
GROUP BY mode, tier, settled_by
ORDER BY mode, decisions DESC, tier
