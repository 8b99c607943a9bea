//! What can be asked of the collectives' cases beyond their preset.

use super::known::known;
use crate::collectives::Element;
use crate::suite::collectives::Choices;
use crate::{Error, Result, nearest, units};

#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Collectives")]
pub struct CollectiveOptions {
    /// Sizes of the collectives instead of the preset's, as in 8,64KiB,1GiB
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub sizes: Vec<String>,
    /// Element type of the collectives
    #[arg(long, value_name = "TYPE", value_parser = known(Element::ALL.map(Element::name)))]
    pub dtype: Option<String>,
    /// Collectives replayed from CUDA graphs
    #[arg(long)]
    pub graph: bool,
    /// Collectives in registered buffers (NCCL 2.19 and later)
    #[arg(long)]
    pub registered: bool,
    /// Thread blocks that NCCL takes, exactly
    #[arg(long, value_name = "N")]
    pub max_ctas: Option<u32>,
}

impl CollectiveOptions {
    pub fn choices(&self) -> Result<Choices> {
        let sizes = self.sizes.iter().map(|text| size(text)).collect::<Result<Vec<u64>>>()?;
        let dtype = self.dtype.as_deref().map(element).transpose()?;
        if self.max_ctas == Some(0) {
            return Err(Error::input("--max-ctas 0", "NCCL needs at least one thread block"));
        }
        Ok(Choices {
            sizes: Some(sizes).filter(|sizes| !sizes.is_empty()),
            dtype,
            graph: self.graph,
            registered: self.registered,
            max_ctas: self.max_ctas,
        })
    }
}

fn size(text: &str) -> Result<u64> {
    match units::parse_bytes(text.trim())? {
        0 => Err(Error::input("--sizes 0", "a message has at least one element")),
        bytes => Ok(bytes),
    }
}

fn element(text: &str) -> Result<Element> {
    Element::parse(text).ok_or_else(|| {
        Error::input(format!("`{text}` is no element type"), nearest::cure(text, Element::ALL.map(Element::name)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_becomes_what_is_meant() {
        let options = CollectiveOptions {
            sizes: vec!["8".into(), " 64KiB".into()],
            dtype: Some("f8e4m3".into()),
            ..CollectiveOptions::default()
        };
        let choices = options.choices().unwrap();
        assert_eq!((choices.sizes, choices.dtype), (Some(vec![8, 64 << 10]), Some(Element::F8E4m3)));
        let wrong = CollectiveOptions { dtype: Some("fb16".into()), ..CollectiveOptions::default() };
        assert!(wrong.choices().unwrap_err().to_string().contains("did you mean `bf16`? known are f32"));
        let wrong = CollectiveOptions { sizes: vec!["0".into()], ..CollectiveOptions::default() };
        assert!(wrong.choices().is_err());
    }
}
