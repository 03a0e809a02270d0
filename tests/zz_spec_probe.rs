use std::path::Path;
#[test]
fn probe() {
    let t = std::env::var("T").map(|p| std::fs::read_to_string(p).unwrap()).unwrap();
    match stor::spec::parse(&t, Path::new("/tmp"), "cluster.yaml") {
        Ok(c) => println!("{c:#?}"),
        Err(e) => {
            let mut out = String::new();
            miette::GraphicalReportHandler::new_themed(miette::GraphicalTheme::unicode_nocolor())
                .with_width(100)
                .render_report(&mut out, &e)
                .unwrap();
            println!("{out}");
        }
    }
}
