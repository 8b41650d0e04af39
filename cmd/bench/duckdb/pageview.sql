-- The views in DuckDB. EVENTS is the table of events. Times are bucketed as whole numbers, since
-- date_trunc and time_bucket of a timestamp with zone took 4 to 10 times as long. Quantiles are exact:
-- approx_quantile took 10 times as long for view 1.

-- view: minute_country
SELECT make_timestamp(b * 60000000) AS minute, country, views, amount, users, latency FROM (
  SELECT epoch_us("time") // 60000000 AS b, country, count(*) AS views, sum(amount) AS amount,
    approx_count_distinct("user") AS users, quantile_disc(latency, [0.5, 0.95, 0.99]) AS latency
  FROM EVENTS GROUP BY ALL)

-- view: hour_page
SELECT make_timestamp(b * 3600000000) AS hour, page, views, amount, slowest FROM (
  SELECT epoch_us("time") // 3600000000 AS b, page, count(*) AS views, sum(amount) AS amount, max(latency) AS slowest
  FROM EVENTS GROUP BY ALL)

-- view: day_device_status
SELECT make_timestamp(b * 86400000000) AS day, device, status, views, slow, mean FROM (
  SELECT epoch_us("time") // 86400000000 AS b, device, status, count(*) AS views,
    count(*) FILTER (latency > 1000) AS slow, avg(latency) AS mean
  FROM EVENTS GROUP BY ALL)

-- view: page_all
SELECT page, approx_count_distinct("user") AS users, count(*) AS views FROM EVENTS GROUP BY ALL

-- view: hour_country_errors
SELECT make_timestamp(b * 3600000000) AS hour, country, latency FROM (
  SELECT epoch_us("time") // 3600000000 AS b, country, quantile_disc(latency, [0.5, 0.95, 0.99]) AS latency
  FROM EVENTS WHERE status >= 400 GROUP BY ALL)

-- view: day_user
SELECT make_timestamp(b * 86400000000) AS day, "user", views, amount FROM (
  SELECT epoch_us("time") // 86400000000 AS b, "user", count(*) AS views, sum(amount) AS amount
  FROM EVENTS GROUP BY ALL)

-- view: day_country_device
SELECT make_timestamp(b * 86400000000) AS day, country, device, views, users FROM (
  SELECT epoch_us("time") // 86400000000 AS b, country, device, count(*) AS views, approx_count_distinct("user") AS users
  FROM EVENTS GROUP BY ALL)

-- view: hour_status
SELECT make_timestamp(b * 3600000000) AS hour, status, views, amount, latency FROM (
  SELECT epoch_us("time") // 3600000000 AS b, status, count(*) AS views, sum(amount) AS amount,
    quantile_disc(latency, [0.5, 0.95]) AS latency
  FROM EVENTS GROUP BY ALL)
