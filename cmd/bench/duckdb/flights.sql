-- The views of flights in DuckDB; see pageview.sql.

-- view: hour_origin
SELECT make_timestamp(b * 3600000000) AS hour, origin, flights, late, mean, delay FROM (
  SELECT epoch_us("time") // 3600000000 AS b, origin, count(*) AS flights, count(*) FILTER (delay > 15) AS late,
    avg(delay) AS mean, quantile_disc(delay, [0.5, 0.95, 0.99]) AS delay
  FROM EVENTS GROUP BY ALL)

-- view: day_route
SELECT make_timestamp(b * 86400000000) AS day, origin, destination, flights, minutes, best FROM (
  SELECT epoch_us("time") // 86400000000 AS b, origin, destination, count(*) AS flights, sum(delay) AS minutes, min(delay) AS best
  FROM EVENTS GROUP BY ALL)

-- view: day_all
SELECT make_timestamp(b * 86400000000) AS day, flights, miles, worst FROM (
  SELECT epoch_us("time") // 86400000000 AS b, count(*) AS flights, sum(distance) AS miles, max(delay) AS worst
  FROM EVENTS GROUP BY ALL)

-- view: origin_all
SELECT origin, count(*) AS flights, approx_count_distinct(destination) AS destinations FROM EVENTS GROUP BY ALL

-- view: hour_late
SELECT make_timestamp(b * 3600000000) AS hour, delay FROM (
  SELECT epoch_us("time") // 3600000000 AS b, quantile_disc(delay, [0.5, 0.95, 0.99]) AS delay
  FROM EVENTS WHERE delay > 15 GROUP BY ALL)

-- view: minute_all
SELECT make_timestamp(b * 60000000) AS minute, flights, miles FROM (
  SELECT epoch_us("time") // 60000000 AS b, count(*) AS flights, sum(distance) AS miles
  FROM EVENTS GROUP BY ALL)
