use std::fmt::{self, Write};

use super::listed;
use crate::adapter::{AdapterEntry, PeftConfig};
use crate::model::{CardLoss, ModelCardData};

/// Writes where to read on, and what to cite.
pub(super) fn describe(
    text: &mut String,
    card: &ModelCardData,
    adapter: Option<&AdapterEntry>,
) -> fmt::Result {
    writeln!(
        text,
        "## Additional Resources\n\n- [Sentence Transformers](https://sbert.net): the models and \
         how they are trained, in Python.\n- [PEFT](https://huggingface.co/docs/peft): the \
         adapters, in Python.\n- [Burn](https://burn.dev): the framework below, in Rust.\n\n## \
         Citation\n\n### BibTeX\n"
    )?;
    let mut entries: Vec<(&'static str, Vec<String>)> =
        vec![(SENTENCE_BERT, vec!["Sentence Transformers".to_owned()])];
    let mut cite = |entry: &'static str, name: String| match entries
        .iter_mut()
        .find(|(known, _)| *known == entry)
    {
        Some((_, names)) if names.contains(&name) => {}
        Some((_, names)) => names.push(name),
        None => entries.push((entry, vec![name])),
    };
    let losses = card.train_datasets.iter().chain(&card.eval_datasets);
    for loss in losses.filter_map(|dataset| dataset.loss.as_ref()) {
        for name in [&loss.name].into_iter().chain(&loss.parts) {
            if let Some(entry) = of_loss(name, loss) {
                cite(entry, name.clone());
            }
        }
    }
    if let Some(PeftConfig::Lora(_)) = adapter.map(|adapter| &adapter.config) {
        cite(LORA, "LoRA".to_owned());
    }
    for (entry, names) in entries {
        writeln!(text, "#### {}\n```bibtex\n{entry}\n```\n", listed(&names))?;
    }
    // A file ends with one line end.
    text.truncate(text.trim_end().len());
    text.push('\n');
    Ok(())
}

/// What the loss of that name, which is `loss` or a part of it, was introduced by.
fn of_loss(name: &str, loss: &CardLoss) -> Option<&'static str> {
    Some(match name {
        "MultipleNegativesRankingLoss" => of_directions(loss),
        "AdaptiveLayerLoss" | "Matryoshka2dLoss" => TWO_D_MATRYOSHKA,
        "AnglELoss" => ANGLE,
        "BatchAllTripletLoss"
        | "BatchHardSoftMarginTripletLoss"
        | "BatchHardTripletLoss"
        | "BatchSemiHardTripletLoss"
        | "TripletLoss" => TRIPLETS,
        "CachedMultipleNegativesRankingLoss"
        | "CachedMultipleNegativesSymmetricRankingLoss"
        | "CachedGISTEmbedLoss" => GRAD_CACHE,
        "CoSENTLoss" => COSENT,
        "ContrastiveLoss" => CONTRASTIVE,
        "DistillKLDivLoss" => DISTILL_KL_DIV,
        "EmbedDistillLoss" => EMBED_DISTILL,
        "GISTEmbedLoss" => GIST_EMBED,
        "GlobalOrthogonalRegularizationLoss" => SPREAD_OUT,
        "MSELoss" => MULTILINGUAL,
        "MarginMSELoss" => MARGIN_MSE,
        "MatryoshkaLoss" => MATRYOSHKA,
        "MegaBatchMarginLoss" => MEGA_BATCH,
        "SoftmaxLoss" => SENTENCE_BERT,
        _ => return None,
    })
}

/// The loss with in-batch negatives has a name of its own for some of its directions.
fn of_directions(loss: &CardLoss) -> &'static str {
    let directions = loss
        .parameters
        .get("directions")
        .and_then(|value| value.as_array());
    let directions = directions.map_or(&[][..], Vec::as_slice);
    let has = |name: &str| directions.iter().any(|direction| direction == name);
    let mode = loss
        .parameters
        .get("partition_mode")
        .and_then(|value| value.as_str());
    match (directions.len(), mode) {
        (4, Some("joint")) => GTE,
        (2, Some("per_direction")) if has("query_to_doc") && has("doc_to_query") => JINA,
        _ => INFO_NCE,
    }
}

const SENTENCE_BERT: &str = r#"@inproceedings{reimers-2019-sentence-bert,
    title = "Sentence-BERT: Sentence Embeddings using Siamese BERT-Networks",
    author = "Reimers, Nils and Gurevych, Iryna",
    booktitle = "Proceedings of the 2019 Conference on Empirical Methods in Natural Language Processing",
    month = "11",
    year = "2019",
    publisher = "Association for Computational Linguistics",
    url = "https://arxiv.org/abs/1908.10084",
}"#;

const INFO_NCE: &str = r#"@misc{oord2019representationlearningcontrastivepredictive,
      title={Representation Learning with Contrastive Predictive Coding},
      author={Aaron van den Oord and Yazhe Li and Oriol Vinyals},
      year={2019},
      eprint={1807.03748},
      archivePrefix={arXiv},
      primaryClass={cs.LG},
      url={https://arxiv.org/abs/1807.03748},
}"#;

const GTE: &str = r#"@misc{li2023generaltextembeddingsmultistage,
      title={Towards General Text Embeddings with Multi-stage Contrastive Learning},
      author={Zehan Li and Xin Zhang and Yanzhao Zhang and Dingkun Long and Pengjun Xie and Meishan Zhang},
      year={2023},
      eprint={2308.03281},
      archivePrefix={arXiv},
      primaryClass={cs.CL},
      url={https://arxiv.org/abs/2308.03281},
}"#;

const JINA: &str = r#"@misc{günther2024jinaembeddings28192token,
      title={Jina Embeddings 2: 8192-Token General-Purpose Text Embeddings for Long Documents},
      author={Michael Günther and Jackmin Ong and Isabelle Mohr and Alaeddine Abdessalem and Tanguy Abel and Mohammad Kalim Akram and Susana Guzman and Georgios Mastrapas and Saba Sturua and Bo Wang and Maximilian Werk and Nan Wang and Han Xiao},
      year={2024},
      eprint={2310.19923},
      archivePrefix={arXiv},
      primaryClass={cs.CL},
      url={https://arxiv.org/abs/2310.19923},
}"#;

const TWO_D_MATRYOSHKA: &str = r#"@misc{li20242d,
    title={2D Matryoshka Sentence Embeddings},
    author={Xianming Li and Zongxi Li and Jing Li and Haoran Xie and Qing Li},
    year={2024},
    eprint={2402.14776},
    archivePrefix={arXiv},
    primaryClass={cs.CL}
}"#;

const ANGLE: &str = r#"@inproceedings{li-li-2024-aoe,
    title = "{A}o{E}: Angle-optimized Embeddings for Semantic Textual Similarity",
    author = "Li, Xianming and Li, Jing",
    year = "2024",
    publisher = "Association for Computational Linguistics",
    url = "https://aclanthology.org/2024.acl-long.101/",
    doi = "10.18653/v1/2024.acl-long.101"
}"#;

const TRIPLETS: &str = r#"@misc{hermans2017defense,
    title={In Defense of the Triplet Loss for Person Re-Identification},
    author={Alexander Hermans and Lucas Beyer and Bastian Leibe},
    year={2017},
    eprint={1703.07737},
    archivePrefix={arXiv},
    primaryClass={cs.CV}
}"#;

const GRAD_CACHE: &str = r#"@misc{gao2021scaling,
    title={Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup},
    author={Luyu Gao and Yunyi Zhang and Jiawei Han and Jamie Callan},
    year={2021},
    eprint={2101.06983},
    archivePrefix={arXiv},
    primaryClass={cs.LG}
}"#;

const COSENT: &str = r#"@article{10531646,
    author={Huang, Xiang and Peng, Hao and Zou, Dongcheng and Liu, Zhiwei and Li, Jianxin and Liu, Kay and Wu, Jia and Su, Jianlin and Yu, Philip S.},
    journal={IEEE/ACM Transactions on Audio, Speech, and Language Processing},
    title={CoSENT: Consistent Sentence Embedding via Similarity Ranking},
    year={2024},
    doi={10.1109/TASLP.2024.3402087}
}"#;

const CONTRASTIVE: &str = r#"@inproceedings{hadsell2006dimensionality,
    author={Hadsell, R. and Chopra, S. and LeCun, Y.},
    booktitle={2006 IEEE Computer Society Conference on Computer Vision and Pattern Recognition (CVPR'06)},
    title={Dimensionality Reduction by Learning an Invariant Mapping},
    year={2006},
    volume={2},
    number={},
    pages={1735-1742},
    doi={10.1109/CVPR.2006.100}
}"#;

const DISTILL_KL_DIV: &str = r#"@misc{lin2020distillingdenserepresentationsranking,
      title={Distilling Dense Representations for Ranking using Tightly-Coupled Teachers},
      author={Sheng-Chieh Lin and Jheng-Hong Yang and Jimmy Lin},
      year={2020},
      eprint={2010.11386},
      archivePrefix={arXiv},
      primaryClass={cs.IR},
      url={https://arxiv.org/abs/2010.11386},
}"#;

const EMBED_DISTILL: &str = r#"@article{kim2023embeddistill,
    title={EmbedDistill: A Geometric Knowledge Distillation for Information Retrieval},
    author={Kim, Seungyeon and Rawat, Ankit Singh and Zaheer, Manzil and Jayasumana, Sadeep and Sadhanala, Veeranjaneyulu and Jitkrittum, Wittawat and Menon, Aditya Krishna and Fergus, Rob and Kumar, Sanjiv},
    year={2023},
    eprint={2301.12005},
    archivePrefix={arXiv},
    primaryClass={cs.IR}
}"#;

const GIST_EMBED: &str = r#"@misc{solatorio2024gistembed,
    title={GISTEmbed: Guided In-sample Selection of Training Negatives for Text Embedding Fine-tuning},
    author={Aivin V. Solatorio},
    year={2024},
    eprint={2402.16829},
    archivePrefix={arXiv},
    primaryClass={cs.LG}
}"#;

const SPREAD_OUT: &str = r#"@misc{zhang2017learningspreadoutlocalfeature,
      title={Learning Spread-out Local Feature Descriptors},
      author={Xu Zhang and Felix X. Yu and Sanjiv Kumar and Shih-Fu Chang},
      year={2017},
      eprint={1708.06320},
      archivePrefix={arXiv},
      primaryClass={cs.CV},
      url={https://arxiv.org/abs/1708.06320},
}"#;

const MULTILINGUAL: &str = r#"@inproceedings{reimers-2020-multilingual-sentence-bert,
    title = "Making Monolingual Sentence Embeddings Multilingual using Knowledge Distillation",
    author = "Reimers, Nils and Gurevych, Iryna",
    booktitle = "Proceedings of the 2020 Conference on Empirical Methods in Natural Language Processing",
    month = "11",
    year = "2020",
    publisher = "Association for Computational Linguistics",
    url = "https://arxiv.org/abs/2004.09813",
}"#;

const MARGIN_MSE: &str = r#"@misc{hofstätter2021improving,
    title={Improving Efficient Neural Ranking Models with Cross-Architecture Knowledge Distillation},
    author={Sebastian Hofstätter and Sophia Althammer and Michael Schröder and Mete Sertkan and Allan Hanbury},
    year={2021},
    eprint={2010.02666},
    archivePrefix={arXiv},
    primaryClass={cs.IR}
}"#;

const MATRYOSHKA: &str = r#"@misc{kusupati2024matryoshka,
    title={Matryoshka Representation Learning},
    author={Aditya Kusupati and Gantavya Bhatt and Aniket Rege and Matthew Wallingford and Aditya Sinha and Vivek Ramanujan and William Howard-Snyder and Kaifeng Chen and Sham Kakade and Prateek Jain and Ali Farhadi},
    year={2024},
    eprint={2205.13147},
    archivePrefix={arXiv},
    primaryClass={cs.LG}
}"#;

const MEGA_BATCH: &str = r#"@inproceedings{wieting-gimpel-2018-paranmt,
    title = "{P}ara{NMT}-50{M}: Pushing the Limits of Paraphrastic Sentence Embeddings with Millions of Machine Translations",
    author = "Wieting, John and Gimpel, Kevin",
    editor = "Gurevych, Iryna and Miyao, Yusuke",
    booktitle = "Proceedings of the 56th Annual Meeting of the Association for Computational Linguistics (Volume 1: Long Papers)",
    month = jul,
    year = "2018",
    address = "Melbourne, Australia",
    publisher = "Association for Computational Linguistics",
    url = "https://aclanthology.org/P18-1042",
    doi = "10.18653/v1/P18-1042",
    pages = "451--462",
}"#;

const LORA: &str = r#"@misc{hu2021lora,
    title={LoRA: Low-Rank Adaptation of Large Language Models},
    author={Edward J. Hu and Yelong Shen and Phillip Wallis and Zeyuan Allen-Zhu and Yuanzhi Li and Shean Wang and Lu Wang and Weizhu Chen},
    year={2021},
    eprint={2106.09685},
    archivePrefix={arXiv},
    primaryClass={cs.CL}
}"#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::CardDataset;
    use serde_json::json;

    fn card(name: &str, parameters: serde_json::Value, parts: &[&str]) -> String {
        let loss = CardLoss {
            name: name.to_owned(),
            parameters: parameters.as_object().unwrap().clone(),
            parts: parts.iter().map(|part| part.to_string()).collect(),
        };
        let card = ModelCardData {
            train_datasets: vec![CardDataset {
                loss: Some(loss),
                ..CardDataset::default()
            }],
            ..ModelCardData::default()
        };
        let mut text = String::new();
        describe(&mut text, &card, None).unwrap();
        text
    }

    #[test]
    fn a_loss_and_those_inside_it_are_cited_once() {
        let text = card("MatryoshkaLoss", json!({}), &["CoSENTLoss", "CoSENTLoss"]);
        for heading in [
            "#### Sentence Transformers\n",
            "#### MatryoshkaLoss\n",
            "#### CoSENTLoss\n",
        ] {
            assert_eq!(text.matches(heading).count(), 1, "{text}");
        }
        assert!(text.contains("kusupati2024matryoshka") && text.ends_with("```\n"));
        let text = card("SoftmaxLoss", json!({}), &[]);
        assert!(
            text.contains("#### Sentence Transformers and SoftmaxLoss\n"),
            "{text}"
        );
        assert!(!card("AnyOtherLoss", json!({}), &[]).contains("AnyOtherLoss"));
    }

    #[test]
    fn directions_say_what_in_batch_negatives_are_from() {
        let cited = |directions: &[&str], mode: &str| {
            let parameters = json!({ "directions": directions, "partition_mode": mode });
            card("MultipleNegativesRankingLoss", parameters, &[])
        };
        let all = [
            "query_to_doc",
            "query_to_query",
            "doc_to_query",
            "doc_to_doc",
        ];
        assert!(cited(&all[..1], "joint").contains("1807.03748"));
        assert!(cited(&all, "joint").contains("2308.03281"));
        assert!(cited(&[all[0], all[2]], "per_direction").contains("2310.19923"));
    }
}
