use super::*;
use crate::figures::chart::{Axis, Chart, Point, Quantity, Scale, Series, Style};
use crate::figures::figure::{FigureData, HeatMap};

fn figure(picture: Picture) -> Figure {
    let mut data = FigureData::new(&[("machine", None), ("median_ns", Some(Quantity::Nanoseconds)), ("flags", None)]);
    data.row(["a \"b\", c".into(), 1500.0.into(), "".into()]);
    data.row(["d".into(), Cell::Empty, "".into()]);
    Figure { name: "x".into(), title: "A <figure> & more".into(), caption: "What it is.".into(), picture, data }
}

fn chart(points: Vec<Point>) -> Picture {
    let series = Series { name: "one".into(), colour: 0, shape: 2, style: Style::MarkedLine, points };
    let other =
        Series { name: "two".into(), colour: 1, shape: 1, style: Style::Hollow, points: vec![Point::at(20.0, 3e4)] };
    let x = Axis::new("size", Scale::Log2, Quantity::Bytes);
    Picture::Charts(vec![Chart::new(x, Axis::new("time", Scale::Log, Quantity::Nanoseconds)).with([series, other])])
}

/// Every font size of a picture, in points.
fn letters(svg: &str) -> Vec<f64> {
    let sizes = svg.split("font-size=\"").skip(1).map(|rest| rest.split('"').next().unwrap().parse::<f64>().unwrap());
    sizes.map(|units| units * 72.0 / f64::from(INCH)).collect()
}

#[test]
fn no_letter_is_smaller_than_seven_points_and_the_size_is_in_inches() {
    let given = figure(chart(vec![Point::at(8.0, 1e3), Point::at(1e6, 1e6)]));
    for (width, inches) in [(FigureWidth::Column, "3.5in"), (FigureWidth::Page, "7in")] {
        let svg = svg(&given, width, Background::White).unwrap();
        assert!(svg.contains(&format!("width=\"{inches}\"")), "{}", &svg[..200]);
        let letters = letters(&svg);
        assert!(letters.len() > 8 && letters.iter().all(|points| *points >= 7.0), "{letters:?}");
        assert!(svg.contains("aria-label=\"A &lt;figure&gt; &amp; more\""), "{}", &svg[..300]);
        assert!(svg.contains(palette::PAPER) && svg.contains("64 KiB") || svg.contains("32 KiB"), "{svg}");
    }
}

#[test]
fn what_is_drawn_stays_within_the_picture() {
    let reach = Point { reach: Some((0.0, 1e30)), ..Point::at(8.0, 1e3) };
    let svg = svg(&figure(chart(vec![reach, Point::at(1e6, 1e6)])), FigureWidth::Column, Background::None).unwrap();
    let numbers = |name: &str| -> Vec<f64> {
        svg.split(&format!(" {name}=\"")).skip(1).filter_map(|rest| rest.split('"').next()?.parse().ok()).collect()
    };
    for name in ["x", "x1", "x2", "cx"] {
        assert!(numbers(name).iter().all(|x| (0.0..=3500.0).contains(x)), "{name}: {:?}", numbers(name));
    }
    assert!(!svg.contains(palette::PAPER) && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
}

#[test]
fn points_that_are_none_break_nothing() {
    for picture in [
        chart(vec![Point::at(f64::NAN, -1.0), Point::at(0.0, f64::INFINITY)]),
        chart(Vec::new()),
        Picture::Heat(HeatMap {
            row_label: "main",
            rows: vec!["a".repeat(80), "b".into()],
            column_label: "side",
            columns: vec!["c".into()],
            cells: vec![vec![Some(f64::NAN)], vec![None]],
        }),
    ] {
        for width in FigureWidth::ALL {
            let svg = svg(&figure(picture.clone()), width, Background::White).unwrap();
            assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        }
    }
}

#[test]
fn the_numbers_are_a_table_and_csv() {
    let given = figure(chart(Vec::new()));
    assert_eq!(csv(&given), "machine,median_ns,flags\r\n\"a \"\"b\"\", c\",1500,\r\nd,,\r\n");
    let table = table(&given, 10);
    assert_eq!(table.header, ["machine", "median"], "a column without anything in it is left out");
    assert_eq!(table.rows, [["a \"b\", c", "1.500 µs"], ["d", "–"]]);
    assert_eq!(super::table(&given, 1).rows.len(), 1);
}
